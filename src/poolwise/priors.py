"""Prior settings to distributions, through an explicit registry.

A prior is a family (a name in `FAMILIES`) with values for its parameters. Families decide which program is
compiled; values reach that program as plain arrays, so another value compiles nothing. Every site of the models
(`lam`, `mu`, `sigma`, `delta`) is a positive quantity, so only positive families are admitted, and nothing is ever
looked up by an import path: settings come back from tracking servers.
"""

import difflib
from collections.abc import Mapping

import numpy as np
import numpyro.distributions as dist
from jax.typing import ArrayLike

FAMILIES: dict[str, type[dist.Distribution]] = {
    "Exponential": dist.Exponential,
    "Gamma": dist.Gamma,
    "HalfCauchy": dist.HalfCauchy,
    "HalfNormal": dist.HalfNormal,
    "InverseGamma": dist.InverseGamma,
    "LogNormal": dist.LogNormal,
    "Uniform": dist.Uniform,
    "Weibull": dist.Weibull,
}
LARGEST = 1e300  # of a parameter
ANY_REAL = {("LogNormal", "loc")}  # every other parameter of the registry is positive (Uniform.low: >= 0)


def distribution(family: str, values: Mapping[str, ArrayLike]) -> dist.Distribution:
    """The distribution of a registered family; `values` may be traced."""
    return FAMILIES[family](**values)


def prior_values(settings: Mapping[str, Mapping[str, object]], *, sites: tuple[str, ...]) -> dict[str, dict]:
    """Checked settings as site -> parameter -> float array, in the order of `sites`."""
    return {
        site: {key: np.asarray(settings[site][key], float) for key in sorted(settings[site]) if key != "name"}
        for site in sites
    }


def faults_of(site: str, prior: object) -> list[str]:
    """What is wrong with the prior of one site, a sentence a fault; none if it can be used."""
    if not isinstance(prior, Mapping):
        return [f"prior.{site} is missing, and this model needs it. Choose one: prior/{site}=<choice>."]
    name = prior.get("name")
    if not isinstance(name, str) or name not in FAMILIES:
        return [
            f"prior.{site}.name is {name}; {site} is positive and takes one of {', '.join(FAMILIES)}. "
            f"Choose one of them, e.g. with prior/{site}=<choice>."
        ]
    wanted = list(FAMILIES[name].arg_constraints)
    unknown = [key for key in prior if key not in ("name", *wanted)]
    faults = [f"prior.{site}.{key} is no parameter of {name}{_nearest(key, wanted)}." for key in unknown]
    faults += [f"prior.{site}.{key} is missing; {name} needs it." for key in wanted if key not in prior]
    return faults or _value_faults(site, prior, wanted)


def _value_faults(site: str, prior: Mapping[str, object], wanted: list[str]) -> list[str]:
    name, faults = str(prior["name"]), []
    for key in wanted:
        value = prior[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < LARGEST:
            faults.append(f"prior.{site}.{key} is {value}; it must be a finite number.")
        elif name == "Uniform":
            if value < 0:
                faults.append(f"prior.{site}.{key} is {value}; {site} is positive, so it must be >= 0.")
        elif (name, key) not in ANY_REAL and value <= 0:
            faults.append(f"prior.{site}.{key} is {value}; it must be > 0.")
    if name == "Uniform" and not faults and not prior["low"] < prior["high"]:  # type: ignore[operator]
        faults.append(f"prior.{site}.low is {prior['low']}, not below prior.{site}.high = {prior['high']}.")
    return faults


def _nearest(key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {close[0]}?" if close else f" (it has {', '.join(known)})"
