"""Prior settings to SciPy's laws: in float64 whatever JAX is set to, with tails to full precision."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import ArrayLike
from scipy import stats

LAWS: dict[str, Callable[..., Any]] = {  # the families of `priors.FAMILIES`
    "Exponential": lambda rate: stats.expon(scale=1 / rate),
    "Gamma": lambda concentration, rate: stats.gamma(concentration, scale=1 / rate),
    "HalfCauchy": lambda scale: stats.halfcauchy(scale=scale),
    "HalfNormal": lambda scale: stats.halfnorm(scale=scale),
    "InverseGamma": lambda concentration, rate: stats.invgamma(concentration, scale=rate),
    "LogNormal": lambda loc, scale: stats.lognorm(scale, scale=math.exp(loc)),
    "Uniform": lambda low, high: stats.uniform(low, high - low),
    "Weibull": lambda scale, concentration: stats.weibull_min(concentration, scale=scale),
}


def law(family: str, values: Mapping[str, ArrayLike]) -> Any:
    """The frozen SciPy distribution of a registered family; each value is one number."""
    return LAWS[family](**{key: float(value) for key, value in values.items()})  # type: ignore[arg-type]
