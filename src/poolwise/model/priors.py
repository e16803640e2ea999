"""Prior settings to distributions, through an explicit registry.

A prior is a family (a name in `FAMILIES`) with values for its parameters. Families decide which program is compiled.
Values reach that program as plain arrays, so another value compiles nothing. Settings may come from tracking servers,
so nothing is looked up by an import path.
"""

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import numpy as np
import numpyro.distributions as dist
from jax.typing import ArrayLike
from scipy import stats

from poolwise.model.data_scale import is_word_for
from poolwise.model.sites import Site, Support

Arrays = Mapping[str, jax.Array]
PriorValues = Mapping[str, Mapping[str, jax.Array | np.ndarray]]
Priors = Mapping[str, dist.Distribution]


class TruncatedNormal(dist.TwoSidedTruncatedDistribution):  # type: ignore[misc]
    """A normal distribution between two bounds; NumPyro's own is a function, without named parameters."""

    arg_constraints: ClassVar = {
        "loc": dist.constraints.real,
        "scale": dist.constraints.positive,
        "low": dist.constraints.real,
        "high": dist.constraints.real,
    }
    pytree_data_fields = ("loc", "scale")  # besides those of the base class

    def __init__(self, loc: ArrayLike, scale: ArrayLike, low: ArrayLike, high: ArrayLike) -> None:
        self.loc, self.scale = loc, scale
        super().__init__(dist.Normal(loc, scale), low=low, high=high)


@dataclass(frozen=True)
class Family:
    """A family of priors.

    Attributes
    ----------
    numpyro : the distribution that is sampled
    scipy : the same, frozen, from its values: always float64, with tails to full precision
    supports : supports of the sites that accept it as a prior
    any_real : parameters that accept any finite value; all others must be positive
    is_bounded : whether its support is from its parameter `low` to its parameter `high`
    """

    numpyro: type[dist.Distribution]
    scipy: Callable[..., Any]
    supports: tuple[Support, ...] = (Support.POSITIVE,)
    any_real: tuple[str, ...] = ()
    is_bounded: bool = False

    @property
    def parameters(self) -> list[str]:
        """Names of its parameters."""
        return list(self.numpyro.arg_constraints)


FAMILIES: dict[str, Family] = {
    "Exponential": Family(dist.Exponential, lambda rate: stats.expon(scale=1 / rate)),
    "Gamma": Family(dist.Gamma, lambda concentration, rate: stats.gamma(concentration, scale=1 / rate)),
    "HalfCauchy": Family(dist.HalfCauchy, lambda scale: stats.halfcauchy(scale=scale)),
    "HalfNormal": Family(dist.HalfNormal, lambda scale: stats.halfnorm(scale=scale)),
    "InverseGamma": Family(dist.InverseGamma, lambda concentration, rate: stats.invgamma(concentration, scale=rate)),
    "LogNormal": Family(
        dist.LogNormal, lambda loc, scale: stats.lognorm(scale, scale=math.exp(loc)), any_real=("loc",)
    ),
    "Normal": Family(
        dist.Normal, lambda loc, scale: stats.norm(loc, scale), supports=(Support.REAL,), any_real=("loc",)
    ),
    "Uniform": Family(
        dist.Uniform,
        lambda low, high: stats.uniform(low, high - low),
        supports=(Support.POSITIVE, Support.UNIT, Support.SIGNED_UNIT),
        is_bounded=True,
    ),
    "Weibull": Family(dist.Weibull, lambda scale, concentration: stats.weibull_min(concentration, scale=scale)),
    "Beta": Family(
        dist.Beta,
        lambda concentration1, concentration0: stats.beta(concentration1, concentration0),
        supports=(Support.UNIT,),
    ),
    "TruncatedNormal": Family(
        TruncatedNormal,
        lambda loc, scale, low, high: stats.truncnorm((low - loc) / scale, (high - loc) / scale, loc, scale),
        supports=(Support.SIGNED_UNIT,),
        any_real=("loc",),
        is_bounded=True,
    ),
}
GAMMAS = ("Gamma", "Exponential")  # families of gamma laws
LARGEST = 1e300  # of a parameter
BOUNDS = {  # of the bounds of a bounded family
    Support.POSITIVE: (0.0, math.inf),
    Support.UNIT: (0.0, 1.0),
    Support.SIGNED_UNIT: (-1.0, 1.0),
    Support.REAL: (-math.inf, math.inf),
}


def distribution(family: str, values: Mapping[str, ArrayLike]) -> dist.Distribution:
    """The distribution of a registered family; `values` may be traced."""
    return FAMILIES[family].numpyro(**values)


def law(family: str, values: Mapping[str, ArrayLike]) -> Any:
    """The frozen SciPy distribution of a registered family; each value is one number."""
    return FAMILIES[family].scipy(**{key: float(value) for key, value in values.items()})  # type: ignore[arg-type]


def prior_moments(family: str, values: Mapping[str, ArrayLike]) -> tuple[bool, bool]:
    """Whether the mean and the standard deviation exist: a half-Cauchy has neither."""
    mean, variance = law(family, values).stats(moments="mv")
    return bool(np.isfinite(mean)), bool(np.isfinite(variance))


def families_for(support: Support) -> list[str]:
    """Names of the families that a site with this support accepts."""
    return [name for name, family in FAMILIES.items() if support in family.supports]


def prior_values(settings: Mapping[str, Mapping[str, object]], *, sites: tuple[str, ...]) -> dict[str, dict]:
    """Checked settings as site -> parameter -> float array, in the order of `sites`."""
    return {
        site: {key: np.asarray(settings[site][key], float) for key in sorted(settings[site]) if key != "name"}
        for site in sites
    }


def faults_of(site: Site, prior: object) -> list[str]:
    """The faults of the prior of one site, one sentence each; empty if it is valid."""
    if not isinstance(prior, Mapping):
        return [f"prior.{site.name} is missing; this model needs it. Choose one: prior/{site.name}=<choice>."]
    name, known = prior.get("name"), families_for(site.support)
    if not isinstance(name, str) or name not in known:
        return [
            f"prior.{site.name}.name is {name}; {site.name} is {site.support} and accepts one of {', '.join(known)}. "
            f"Choose one of them, e.g. with prior/{site.name}=<choice>."
        ]
    wanted = FAMILIES[name].parameters
    unknown = [key for key in prior if key not in ("name", *wanted)]
    faults = [f"prior.{site.name}.{key} is not a parameter of {name}{_nearest(key, wanted)}." for key in unknown]
    faults += [f"prior.{site.name}.{key} is missing; {name} needs it." for key in wanted if key not in prior]
    return faults or _value_faults(site, prior, FAMILIES[name])


def _value_faults(site: Site, prior: Mapping[str, Any], family: Family) -> list[str]:
    faults, (lowest, highest) = [], BOUNDS[site.support]
    for key in family.parameters:
        place, value = f"prior.{site.name}.{key} is {prior[key]}", prior[key]
        if is_word_for(value, any_real=key in family.any_real):
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < LARGEST:
            faults.append(f"{place}; it must be a finite number.")
        elif family.is_bounded and key in ("low", "high"):
            if not lowest <= value <= highest:
                limit = f"must be >= {lowest:g}" if value < lowest else f"must be <= {highest:g}"
                faults.append(f"{place}; {site.name} is {site.support}, so it {limit}.")
        elif key not in family.any_real and value <= 0:
            faults.append(f"{place}; it must be > 0.")
    ends = [prior[key] for key in ("low", "high")] if family.is_bounded else []
    if ends and not faults and not any(isinstance(end, str) for end in ends) and not ends[0] < ends[1]:
        low, high = (f"prior.{site.name}.{key}" for key in ("low", "high"))
        faults.append(f"{low} is {prior['low']}, not below {high} = {prior['high']}.")
    return faults


def _nearest(key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {close[0]}?" if close else f" (it has {', '.join(known)})"
