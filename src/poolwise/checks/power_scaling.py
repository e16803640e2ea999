"""Power-scaling: draws to the sensitivity of the posterior to the priors and to the likelihood.

A prior, or the likelihood, p is raised to a power alpha near 1 by weighting the draws with p^(alpha - 1), smoothed. The
cumulative Jensen-Shannon distance D between the distribution functions before and after measures how far the marginal
of a parameter moves. Its sensitivity is the mean of D / |log2 alpha| for an alpha below and an alpha above 1.

This is influence, not contradiction: few groups say little of sigma, so its prior matters in nearly all tables drawn
from that very prior. `lines` speak only of the sites that take a prior, and of those beyond `UNUSUAL`. A parameter
that hardly moves with the likelihood need not be unknown: more rows in the same groups do not move mu. Only the
top-level priors are scaled: lam | mu, sigma of a hierarchy is part of its model, and scaling it too shows
sensitivities that do not exist.

References
----------
Kallioinen, Paananen, Bürkner and Vehtari (2024), Statistics and Computing 34:57, doi:10.1007/s11222-023-10366-5.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr
from arviz_stats.base import array_stats

from poolwise.checks import loo, summary
from poolwise.checks.base import Check, FitView, Result, Settings
from poolwise.checks.integrated_loo import integral_of
from poolwise.counts.cells import Counts
from poolwise.inference import predictive
from poolwise.inference.datatree import STORED_DRAW, joint
from poolwise.inference.rates import evenly_spaced
from poolwise.model.count_model import WITHOUT_MEAN, Model
from poolwise.model.priors import PriorValues, distribution
from poolwise.text import listed, one_line

ALPHAS = ((0.8, 1.25), (0.99, 1.01))  # the second if weights of the first cannot be smoothed
SENSITIVE = 0.05  # as in priorsense, from section 3.3 of the reference
# the prior moves mu or sigma more than this in 1 of 100 tables drawn from the notebook's priors (5 groups of 30 or of 6
# rows; in none of 20 groups of 3 rows)
UNUSUAL = 0.3
BOTH, DOMINANT, NOTHING = "prior and data both move it", "the prior moves it, the likelihood hardly", "-"
UNKNOWN = "not known: the weights cannot be smoothed"
# parameters times draws; more parameters use fewer draws, at least LEAST: a sensitivity of 0.2 has an error of 0.025
WORK, LEAST = 2_000_000, 1000


def run(view: FitView, _: Settings) -> Result:
    """Sensitivity of the posterior to the priors."""
    table = power_scaling(view.posterior, view.counts, view.cells, view.model, view.prior_values)
    dominant, found = tag(table), tuple(lines(table))
    return Result(
        metrics={"prior_sensitivity_max": float(table["prior"].max())},
        tags={"prior_dominates": dominant} if dominant else {},
        lines=found,
        tables={"sensitivity": table},
        shown_in=("sensitivity",) if found else (),
        value=table,
    )


CHECK = Check("power_scaling", "sensitivity", run)


def power_scaling(
    posterior: xr.Dataset, counts: Counts, cells: xr.Dataset, model: Model, values: PriorValues
) -> pd.DataFrame:
    """One row per parameter: sensitivity to each top-level prior, to all of them and to the likelihood; diagnosis.

    Parameters
    ----------
    cells : the `constant_data` of `datatree.to_tree`
    values : site -> parameter -> (), the values of the priors

    Returns
    -------
    `prior.<site>` for every site that takes a prior, `prior` (all at once), `likelihood` and `diagnosis`; NaN if no
    alpha gives weights that can be smoothed. Parameters without a mean (`count_model.WITHOUT_MEAN`) are omitted, and so
    are the rates of more groups than are stored at every draw: of these the likelihood is the marginal one.
    """
    is_many = STORED_DRAW in posterior.dims
    is_marginal = is_many and model.integrates_rates
    posterior = _thinned(posterior.drop_vars("lam") if is_marginal else joint(posterior))
    some = posterior.drop_vars("lam", errors="ignore") if is_many else posterior
    flat = {name: draws for name, draws in summary.parameters(some).items() if name not in WITHOUT_MEAN}
    scaled = {f"prior.{site}": density for site, density in log_priors(posterior, model, values).items()}
    scaled |= {
        "prior": np.sum(list(scaled.values()), axis=0),
        "likelihood": log_marginal(model, posterior, counts, values)
        if is_marginal
        else log_likelihood(model, posterior, cells),
    }
    table = pd.DataFrame(
        {name: _sensitivities(log_density, list(flat.values())) for name, log_density in scaled.items()},
        index=pd.Index(list(flat), name="parameter"),
    )
    return table.assign(diagnosis=[diagnosis(*pair) for pair in table[["prior", "likelihood"]].itertuples(index=False)])


def log_priors(posterior: xr.Dataset, model: Model, values: PriorValues) -> dict[str, np.ndarray]:
    """Log density of each top-level prior at the draws, (chain, draw); of rates, and of effects, their sum."""
    found: dict[str, np.ndarray] = {}
    families = dict(model.families)
    for site, prior in model.sites.items():
        if site not in posterior:
            continue
        draws = posterior[site].transpose("chain", "draw", ...).values
        log_density = np.asarray(distribution(families[prior], values[prior]).log_prob(draws))
        found[prior] = found.get(prior, 0.0) + log_density.reshape(*draws.shape[:2], -1).sum(axis=2)
    return found


def log_likelihood(model: Model, posterior: xr.Dataset, cells: xr.Dataset) -> np.ndarray:
    """Log probability of all rows under each draw, (chain, draw)."""
    multiplicity, begin = cells["cell_multiplicity"].values, 0
    total = np.zeros((posterior.sizes["chain"], posterior.sizes["draw"]))
    for block in predictive.pointwise_log_likelihood(model.likelihood, posterior, cells):
        total += np.tensordot(multiplicity[begin : begin + len(block)], block, axes=1)
        begin += len(block)
    return total


def log_marginal(model: Model, posterior: xr.Dataset, counts: Counts, values: PriorValues) -> np.ndarray:
    """Log probability of all rows with the rates integrated out under each draw, (chain, draw)."""
    return integral_of(posterior, model, values).log_marginal_of(model.likelihood.statistics.of_kinds(counts))


def diagnosis(prior: float, likelihood: float) -> str:
    """The diagnosis of a parameter from its two sensitivities."""
    if not np.isfinite([prior, likelihood]).all():
        return UNKNOWN
    if prior < SENSITIVE:
        return NOTHING
    return BOTH if likelihood >= SENSITIVE else DOMINANT


def tag(table: pd.DataFrame) -> str:
    """The priors that move a site and the likelihood hardly, as `prior.sigma: mu, sigma`; empty if there is none."""
    found = [f"{site}: {_listed(rows)}" for kind, site, rows in _problems(table) if kind == DOMINANT]
    return "; ".join(found)


def lines(table: pd.DataFrame) -> list[str]:
    """Remarks on the priors, one line per prior and kind of remark; empty if there is none."""
    words = {
        BOTH: "{site} and the data both move {names} ({size}); compare with another {site}",
        DOMINANT: "{site} moves {names}, the likelihood hardly ({size}); compare with another {site}",
        UNKNOWN: "how much a prior moves {names} is " + UNKNOWN,
    }
    found = []
    for kind, site, rows in _problems(table):
        worst = rows["prior"].fillna(0.0).to_numpy().argmax()
        prior, likelihood = rows["prior"].iloc[worst], rows["likelihood"].iloc[worst]
        size = f"power-scaling: {'at most ' if len(rows) > 1 else ''}prior {prior:.2f}, likelihood {likelihood:.2f}"
        found.append(words[kind].format(site=site, names=_listed(rows), size=size))
    return found


def _problems(table: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame]]:
    """(diagnosis, the prior that moves the sites most, the sites), for those that a prior moves beyond `UNUSUAL`."""
    has_prior = np.array([f"prior.{str(name).split('.')[0]}" in table.columns for name in table.index], bool)
    rows = table[has_prior & ((table["prior"] >= UNUSUAL) | (table["diagnosis"] == UNKNOWN))]
    by_site = rows.filter(like="prior.").astype(float).fillna(0.0)
    groups: dict[tuple[str, str], list[int]] = {}
    for i in range(len(rows)):
        site = by_site.columns[int(by_site.iloc[i].to_numpy().argmax())]
        groups.setdefault((rows["diagnosis"].iloc[i], site), []).append(i)
    return [(*key, rows.iloc[some]) for key, some in groups.items()]


def _listed(rows: pd.DataFrame) -> str:
    return listed(map(one_line, rows.sort_values("prior", ascending=False).index))


def _sensitivities(log_density: np.ndarray, parameters: Sequence[np.ndarray]) -> list[float]:
    """Sensitivity of each parameter to what has this log density at the draws, (chain, draw)."""
    if np.ptp(log_density) == 0:  # a Uniform prior: scaling it changes nothing
        return [0.0] * len(parameters)
    for alphas in ALPHAS:
        if all(_can_be_smoothed((alpha - 1) * log_density) for alpha in alphas):
            lower, upper = (_weights(log_density, alpha) for alpha in alphas)
            return [float(array_stats.power_scale_sense(draws, lower, upper, *alphas)) for draws in parameters]
    return [float("nan")] * len(parameters)


def _weights(log_density: np.ndarray, alpha: float) -> np.ndarray:
    log_weights = array_stats.power_scale_lw(log_density, alpha=alpha, axis=(-2, -1))
    weights = np.exp(log_weights - log_weights.max())
    return weights / weights.sum()


def _can_be_smoothed(log_weights: np.ndarray) -> bool:
    return loo.pareto_k(log_weights) <= loo.pareto_k_limit(log_weights.size)


def _thinned(posterior: xr.Dataset) -> xr.Dataset:
    """Evenly spaced draws of each chain, if there are too many parameters for all draws."""
    num_chains, length = posterior.sizes["chain"], posterior.sizes["draw"]
    per_chain = max(WORK // len(summary.parameters(posterior)), LEAST) // num_chains
    return posterior.isel(draw=evenly_spaced(length, per_chain))
