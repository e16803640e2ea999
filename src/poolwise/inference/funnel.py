"""Posterior draws to a funnel: the limits between which the observed rate of a group is expected, by its exposure.

The observed rate of a group is its total by its exposure. The limits are quantiles of the posterior predictive
distribution of that rate for a group whose own counts are not used: its rate is drawn anew in each draw, and its total
varies as the likelihood says. So they integrate over all parameters:

    pooled          the rate is lam
    hierarchical    the rate is that of a new group
    unpooled        the groups do not inform a new one: the rate is the overall rate, the exposure-weighted mean

References
----------
Spiegelhalter (2005), Statistics in Medicine 24(8):1185-1202, doi:10.1002/sim.1970 (95% and 99.8% limits).
"""

import numpy as np
import xarray as xr

from poolwise.inference.datatree import joint
from poolwise.inference.predictive import draws_of
from poolwise.inference.streams import named_generator
from poolwise.model.count_model import Model
from poolwise.model.likelihoods.base import Params
from poolwise.model.likelihoods.poisson import POISSON
from poolwise.model.priors import PriorValues
from poolwise.model.special import mean_one_gamma

LIMITS = (0.95, 0.998)
TAILS = tuple((1 - share) / 2 for share in LIMITS)
SHARES = (TAILS[1], TAILS[0], 0.5, 1 - TAILS[0], 1 - TAILS[1])  # ascending
SIMULATED = 160_000  # totals behind a limit: 160 lie beyond one of 99.8%


def funnel(
    model: Model,
    posterior: xr.Dataset,
    values: PriorValues,
    *,
    weights: np.ndarray,
    exposures: np.ndarray,
    row_exposure: float,
    seed: int,
) -> np.ndarray:
    """The quantiles `SHARES` of the observed rate of a group, (E, 5).

    A total is a whole number; its quantiles are interpolated, as in the reference, so that the limits
    are smooth. Every exposure has the same random numbers.

    Parameters
    ----------
    weights : (G,), the exposure of each group, for the overall rate
    exposures : (E,), of the group
    row_exposure : a group has as many rows of this exposure as its exposure holds, at least one
    """
    draws, rng = _repeated(draws_of(model, joint(posterior))), named_generator(seed, "funnel")
    if model.pooling.informs_new_group:
        rate = model.pooling.new_rates(draws, dict(model.families), values, rng)
    else:
        rate = draws["lam"] @ (weights / weights.sum())
    params = model.likelihood.params_of(draws)
    found = []
    for exposure in exposures:
        rows = max(1, round(exposure / row_exposure))
        same = named_generator(seed, "funnel", 1)
        of_row = model.likelihood.at(params, exposure / rows)
        total = _total(model, rate * exposure / rows, of_row, rows, same) - same.random(len(rate))
        found.append(np.maximum(np.quantile(total, SHARES), 0) / exposure)
    return np.array(found)


def _total(model: Model, rate: np.ndarray, params: Params, rows: int, rng: np.random.Generator) -> np.ndarray:
    """The sum of so many rows of one rate, for each draw.

    It is drawn from the negative binomial with the mean and the variance of the sum, or the Poisson if the variance is
    not larger: the law of the sum of Poisson and of negative binomial rows, and close to that of others.
    """
    if rows == 1:
        return model.likelihood.sample(rate, params, rng)
    mean, square = model.likelihood.moments(rate, rate**2, params) or model.likelihood.moments_at(rate, params)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # rates as small or large as floats can be
        ratio = (square - mean**2) / mean - 1.0  # of the variance to that of a Poisson, less 1
    concentration = rows * mean / np.where(ratio > 1e-12, ratio, 1e-12)
    return POISSON.sample(rows * mean * mean_one_gamma(concentration, rng), {}, rng)


def _repeated(draws: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """About `SIMULATED` draws: each as often as the others, or evenly spaced ones."""
    size = len(draws["lam"])
    places = np.arange(SIMULATED) % size if size < SIMULATED else np.linspace(0, size - 1, SIMULATED).astype(int)
    return {name: each[places] for name, each in draws.items()}
