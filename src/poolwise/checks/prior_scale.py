"""Priors and counts to a warning before the fit, if the data lie in the far tail of a prior.

Each top-level prior is compared with an interval of its parameter from the counts. An interval and not a number: a
group with few events, or none, allows other rates than the one it happens to show.

    lam      the rates that the total of a group (pooled: of all rows) allows: quantiles of Gamma(total + 1/2, exposure)
    mu       the mean rate of the population of groups, by their own spread
    sigma    their standard deviation without the noise of counts; only a large one contradicts a prior: groups may
             agree. The lower end is that of an analysis of variance. The noise is the Poisson's or, for a wider
             likelihood, the spread within groups; without repeated rows that is not known, nor is sigma

A prior is out of scale if even the nearer end of the interval lies in its far tail. The usual cause is the unit, for
example chips per cookie or per hundred cookies. The warning ends with overrides that give priors in the unit of the
data. Nothing is refused: data may surprise. Nothing here uses JAX, so the warning can come before the devices start.

After the fit such a prior must not decide it: `conditions` of the verdict.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy import stats
from scipy.optimize import minimize

from poolwise.checks.conditions import Condition
from poolwise.counts.cells import Counts
from poolwise.model.count_model import Model
from poolwise.model.data_scale import overrides
from poolwise.model.priors import PriorValues, law

FAR = 0.005  # probability of one tail of a prior; divided by G for G rates
LEVEL = 0.95  # of the intervals
KNOWN = 1e9  # degrees of freedom of a variance that is not estimated
NEAR = 10.0  # a posterior within this factor of the range that the data show lies where the data are
INSIDE = 0.99  # least share of it
SUBJECTS = {"lam": "rates", "mu": "mean rates", "sigma": "standard deviations between groups"}


@dataclass(frozen=True)
class OutOfScale:
    """A prior that has the data in its far tail.

    Attributes
    ----------
    low, high : the range of its parameter that the data show, over all groups
    line : a sentence
    """

    site: str
    low: float
    high: float
    line: str


def lines(model: Model, values: PriorValues, counts: Counts) -> list[str]:
    """One line per top-level prior that has the data in its far tail; empty if there is none.

    Parameters
    ----------
    values : site -> parameter -> (), the values of the priors
    """
    found = [each.line for each in out_of_scale(model, values, counts)]
    if found:
        found[-1] += f" Priors in that unit: {overrides(dict(model.families), counts)} (or prior=scaled)."
    return found


def conditions(
    model: Model, values: PriorValues, counts: Counts, posterior: xr.Dataset, *, is_exact: bool
) -> tuple[Condition, ...]:
    """Whether the posterior lies where the data are, for each prior that has the data in its far tail.

    Prior and data in different units can make two modes, and chains may all be in the wrong one. A fit that agrees with
    the exact answer (`is_exact`) is right wherever its posterior lies.
    """
    if is_exact:
        return ()
    return tuple(_condition(each, posterior[each.site].values) for each in out_of_scale(model, values, counts))


def _condition(prior: OutOfScale, draws: np.ndarray) -> Condition:
    inside = np.mean((draws > prior.low / NEAR) & (draws < prior.high * NEAR))
    return Condition.of(
        name=f"share of the posterior of {prior.site} where the data are: does a prior in another unit decide?",
        value=f"{inside:.1%}",
        limit=f"at least {INSIDE:.0%}",
        passed=bool(inside >= INSIDE),
        otherwise=f"prior.{prior.site} has the data in its far tail, and {1 - inside:.1%} of the posterior of "
        f"{prior.site} lies away from what the data show: the unit of the prior may decide this fit, and no exact "
        "answer confirms it. Put the prior into the unit of the data",
        shown_in="prior_predictive",
    )


def out_of_scale(model: Model, values: PriorValues, counts: Counts) -> list[OutOfScale]:
    """The top-level priors that have the data in their far tail."""
    shown = dict(_shown(model, counts))
    found = []
    for site, family in model.families:
        if site not in shown:
            continue
        prior, (low, middle, high) = law(family, values[site]), shown[site]
        far = FAR / len(middle)
        below, above = prior.cdf(high), prior.sf(low)
        is_out = (below < far) | (above < far)
        if is_out.any():
            settings = ", ".join(f"{key} {float(value):.4g}" for key, value in values[site].items())
            groups = f" in {is_out.sum()} of {len(middle)} groups" if len(middle) > 1 else ""
            expected = _range(prior.ppf([FAR, 1 - FAR]))
            line = (
                f"prior.{site} {family}({settings}) expects {SUBJECTS[site]} of {expected}; the data show "
                f"{_range(middle[is_out])}{groups}, where its tail probability is "
                f"{np.minimum(below, above)[is_out].min():.1g}. Is it in the unit of the data, counts per exposure?"
            )
            found.append(OutOfScale(site, float(low.min()), float(high.max()), line))
    return found


def _shown(model: Model, counts: Counts) -> Iterator[tuple[str, np.ndarray]]:
    """Estimates of the sites from the data: (lower end, value, upper end), each (G,) or (1,)."""
    group, rows = counts.cell_group, counts.cell_multiplicity
    total = np.bincount(group, rows * counts.cell_count.astype(float))  # (G,)
    exposure = np.bincount(group, rows * _exposure(counts))
    overall = _rate(total.sum(keepdims=True), exposure.sum(keepdims=True))
    if not model.pooling.has_population:
        yield "lam", overall if model.pooling.is_shared else _rate(total, exposure)
        return
    rate, num_groups = (total + 0.5) / exposure, len(total)
    if num_groups < 2:
        yield "mu", overall
        return
    reach = stats.t.ppf((1 + LEVEL) / 2, num_groups - 1) * rate.std(ddof=1) / np.sqrt(num_groups)
    low, high = np.minimum(overall[0], rate.mean() - reach), np.maximum(overall[2], rate.mean() + reach)
    yield "mu", np.array([low, [rate.mean()], high])
    noise, freedom = _noise(model, counts, rate, exposure)
    if freedom:
        spread = rate.var(ddof=1)
        least = max(0.0, spread / stats.f.ppf((1 + LEVEL) / 2, num_groups - 1, freedom) - noise)
        yield "sigma", np.sqrt([[least], [max(0.0, spread - noise)], [np.inf]])


@functools.lru_cache(maxsize=2)
def _exposure(counts: Counts) -> np.ndarray:
    """Exposures of the cells times exp(x beta), (C,), at the mode of beta ~ Normal(0, 1) with the best rates."""
    if not counts.effects:
        return counts.cell_exposure
    rows, x, num_groups = counts.cell_multiplicity, counts.cell_x, counts.num_groups
    total = np.bincount(counts.cell_group, rows * counts.cell_count.astype(float), num_groups)
    slope = x.T @ (rows * counts.cell_count)

    def cost(beta: np.ndarray) -> float:
        size = rows * counts.cell_exposure * np.exp(x @ beta)
        return float(total @ np.log(np.bincount(counts.cell_group, size, num_groups)) - slope @ beta + beta @ beta / 2)

    return counts.cell_exposure * np.exp(x @ minimize(cost, np.zeros(x.shape[1])).x)


def _noise(model: Model, counts: Counts, rate: np.ndarray, exposure: np.ndarray) -> tuple[float, float]:
    """Mean variance of a group's rate about the true one, and its degrees of freedom; 0 if it is not known."""
    if not model.likelihood.sites:  # nothing widens the noise: its variance is the mean
        return float(np.mean(rate / exposure)), KNOWN
    group, size = counts.cell_group, counts.cell_multiplicity
    off = counts.cell_count - rate[group] * _exposure(counts)
    rows, squares = np.bincount(group, size), np.bincount(group, size * off**2)
    has_repeats = rows > 1
    by_group = (squares * rows / np.maximum(rows - 1, 1) / exposure**2)[has_repeats]
    return float(by_group.mean()) if by_group.size else 0.0, float((rows - 1).sum())


def _rate(total: np.ndarray, exposure: np.ndarray) -> np.ndarray:
    """Lower end, value and upper end of rates, (3, G)."""
    ends = stats.gamma.ppf([[(1 - LEVEL) / 2], [(1 + LEVEL) / 2]], total + 0.5) / exposure
    return np.stack([ends[0], (total + 0.5) / exposure, ends[1]])


def _range(values: np.ndarray) -> str:
    low, high = f"{values.min():.3g}", f"{values.max():.3g}"
    return low if low == high else f"{low} to {high}"
