"""The parameters that take a prior: their names, symbols and supports."""

from dataclasses import dataclass
from enum import StrEnum


class Support(StrEnum):
    """The possible values of a site, in words."""

    POSITIVE = "positive"
    UNIT = "between 0 and 1"


@dataclass(frozen=True)
class Site:
    """A parameter that takes a prior.

    Attributes
    ----------
    name : in configs and tables
    symbol : in formulas, HTML
    meaning : a short description
    """

    name: str
    symbol: str
    meaning: str
    support: Support = Support.POSITIVE
