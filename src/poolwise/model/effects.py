"""Effects of covariates: the rate of a row is its exposure times exp(x beta) times the rate of its group.

x is the row of the design matrix (`counts.covariates`) and beta the effects, one for each of its columns. A stratum, or
a cell, has one row of the matrix, so that effects only change its exposure: every density that takes the statistics of
a table takes those with the exposures at beta. Each effect is a site of its own, `beta.<effect>`; all have one prior.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro.distributions import Distribution

from poolwise.counts.cells import run_starts
from poolwise.counts.statistics import Statistics
from poolwise.model.priors import Arrays
from poolwise.model.sites import Site, Support

BETA = Site("beta", "β", "effect of a covariate: the logarithm of a ratio of rates", Support.REAL)


def site_of(effect: str) -> str:
    """The site of an effect."""
    return f"{BETA.name}.{effect}"


def sample(effects: Sequence[str], prior: Distribution) -> jax.Array:
    """The effects, (P,), inside a NumPyro model."""
    return jnp.stack([numpyro.sample(site_of(effect), prior) for effect in effects])


def factors(effects: Iterable[str], draws: Mapping[str, Any], x: np.ndarray) -> np.ndarray:
    """exp(x beta) of rows of the design matrix (N, P) at draws of the effects, (..., N), with NumPy."""
    return np.exp(np.stack([draws[site_of(effect)] for effect in effects], axis=-1) @ x.T)


def group_exposures(
    kind: Statistics, statistics: Mapping[str, np.ndarray], effects: Sequence[str], draws: Mapping[str, np.ndarray]
) -> np.ndarray:
    """The exposures of the groups at draws (D,) of the effects, (D, G), with NumPy."""
    size = statistics[f"{kind.part}rows"] * statistics[f"{kind.part}exposure"]
    return np.add.reduceat(
        size * factors(effects, draws, statistics[f"{kind.part}x"]), run_starts(statistics[kind.parts[0]]), axis=-1
    )


def exposed(kind: Statistics, statistics: Arrays, beta: jax.Array) -> dict[str, jax.Array]:
    """The statistics at effects (P,): exposures times exp(x beta).

    In the counts' terms y log r the factor adds y x beta to the constant. `cell_units` keeps the exposures of cells:
    effects change the rate of a unit, not how many there are.
    """
    part, group = kind.part, statistics[kind.parts[0]]
    log_factor = statistics[f"{part}x"] @ beta
    exposure = statistics[f"{part}exposure"] * jnp.exp(log_factor)
    num_groups = statistics["group_exposure"].shape[0]

    def by_group(value: jax.Array) -> jax.Array:
        return jax.ops.segment_sum(value, group, num_groups, indices_are_sorted=True)

    found = {
        **statistics,
        f"{part}exposure": exposure,
        "group_exposure": by_group(statistics[f"{part}rows"] * exposure),
    }
    if part == "cell_":
        return {**found, "cell_units": statistics["cell_exposure"]}
    number = statistics.get("groups_alike", 1.0)
    shift = jnp.sum(number * by_group(statistics["stratum_total"] * log_factor))
    return {**found, "constant": statistics["constant"] + shift}


def at_draw(kind: Statistics, statistics: Arrays, effects: Sequence[str], draw: Arrays) -> Arrays:
    """The statistics at the effects of one draw of their sites; unchanged without effects."""
    if not effects:
        return statistics
    return exposed(kind, statistics, jnp.stack([draw[site_of(effect)] for effect in effects]))
