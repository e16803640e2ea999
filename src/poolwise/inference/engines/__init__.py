"""The engines. To add one: a file with an instance, its line here, a choice in `conf/sampler`."""

from poolwise.inference.engines.base import Engine
from poolwise.inference.engines.exact import EXACT_ENGINE
from poolwise.inference.engines.nuts import NUTS_ENGINE

ENGINES: dict[str, Engine] = {each.name: each for each in (NUTS_ENGINE, EXACT_ENGINE)}
