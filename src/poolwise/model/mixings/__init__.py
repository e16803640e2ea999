"""The mixings: laws of rates that can be integrated out. To add one: a file with an instance, its line here."""

from poolwise.model.mixings.base import Mixing
from poolwise.model.mixings.gamma import GAMMA
from poolwise.model.mixings.log_normal import LOG_NORMAL

MIXINGS: dict[str, Mixing] = {each.family: each for each in (GAMMA, LOG_NORMAL)}
