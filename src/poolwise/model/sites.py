"""The parameters that take a prior, and the features of counts that a plug-in describes."""

from dataclasses import dataclass
from enum import StrEnum


class Feature(StrEnum):
    """What counts show beyond one Poisson rate for all rows, and only some plug-ins can describe."""

    DIFFERENT_GROUPS = "groups with different rates"
    OVERDISPERSION = "variance above the mean within groups"
    UNDERDISPERSION = "variance below the mean within groups"
    EXCESS_ZEROS = "more zeros than their rates give"


class Support(StrEnum):
    """The possible values of a site, in words."""

    POSITIVE = "positive"
    UNIT = "between 0 and 1"
    SIGNED_UNIT = "between -1 and 1"
    REAL = "any real number"


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
