"""Leave-one-out values of rows whose importance weights fail, by refits without the row.

A row that decides much of what is known of the population leaves a large Pareto k even with the rates integrated out. A
few of them are refitted. With h the parameters that are not rates, l(h) = p(y_i | y_{g,-i}, h), and E_1 and E_0 the
means over the draws of h given all rows and given all others, the value c = p(y_i | y_-i) solves

    c = E_0[l / (l + c)] / E_1[1 / (l + c)],

bridge sampling between the two posteriors, which differ by the factor l / c. Both means are of bounded values, so that
neither tail decides them, as it decides 1 / E_1[1 / l] (importance sampling) and E_0[l] (a refit alone). Rows alike in
groups alike have one refit.

References
----------
Meng and Wong (1996), Simulating ratios of normalizing constants via a simple identity, Statistica Sinica 6: equations
4.1 and 3.3, for samples of equal size.
"""

from dataclasses import replace

import numpy as np
import xarray as xr
from arviz_stats.base import array_stats
from scipy.special import expit

from poolwise.checks.base import Settings
from poolwise.checks.integrated_loo import integral_of, kinds_of, rows_given_rest
from poolwise.checks.leave_group_out import is_converged, state_of, with_rows
from poolwise.checks.loo import Loo, weighted_sum
from poolwise.counts.cells import Counts
from poolwise.inference.engines import ENGINES
from poolwise.inference.streams import named_seed
from poolwise.model.count_model import Model
from poolwise.model.marginal_quadrature import RateIntegral
from poolwise.model.priors import PriorValues

MOST = 5  # refits; with more bad rows, elpd_loo stays in doubt
REFIT_ABOVE_K = 0.5  # k-hat has a standard error near 0.3: a row at 0.67 was 9 Monte Carlo errors off
ITERATIONS = 1000


def refitted_where_bad(
    loo: Loo,
    counts: Counts,
    posterior: xr.Dataset,
    model: Model,
    values: PriorValues,
    settings: Settings,
) -> Loo:
    """The values with those of bad rows from refits, if these are few and their chains agree.

    Parameters
    ----------
    loo : integrated values
    """
    kinds, which = kinds_of(counts, model)
    _, first = np.unique(which, return_index=True)
    k = np.nan_to_num(loo.pareto_k[first], nan=np.inf)
    chosen = np.argsort(-k, kind="stable")[:MOST]
    chosen = chosen[k[chosen] > REFIT_ABOVE_K]
    if not len(chosen) or np.sum(k > loo.k_threshold) > MOST:
        return loo
    integral = integral_of(posterior, model, values)
    cell_elpd, pareto_k, variance = loo.cell_elpd.copy(), loo.pareto_k.copy(), loo.mcse**2
    for kind in chosen:
        alike = which == kind
        cell = int(np.flatnonzero(alike)[0])
        refit = ENGINES[settings.sampler.name].sample(
            model,
            without_row(counts, cell),
            values,
            seed=named_seed(settings.seed, "rows_left_out", cell),
            sampler=settings.sampler,
            device=settings.device,
        )
        if not is_converged(*state_of(refit), settings.sampler.num_chains):
            return loo
        both = (integral, RateIntegral.of(model, values, refit.posterior))
        cell_elpd[alike], mcse = bridge(*(rows_given_rest((kinds[kind],), each)[0] for each in both))
        pareto_k[alike] = 0.0  # bounded
        variance += (counts.cell_multiplicity[alike].sum() * mcse) ** 2
    elpd, se = weighted_sum(cell_elpd, counts.cell_multiplicity)
    return replace(
        loo,
        elpd=elpd,
        se=se,
        p_loo=loo.elpd + loo.p_loo - elpd,  # lppd is unchanged
        mcse=float(np.sqrt(variance)),
        cell_elpd=cell_elpd,
        pareto_k=pareto_k,
        bad_rows=int(counts.cell_multiplicity[~(pareto_k <= loo.k_threshold)].sum()),
        refitted_rows=int(counts.cell_multiplicity[np.isin(which, chosen)].sum()),
    )


def without_row(counts: Counts, cell: int) -> Counts:
    """The table without one row of a cell; for a fit alone."""
    return with_rows(counts, counts.cell_multiplicity - (np.arange(len(counts.cell_multiplicity)) == cell))


def bridge(log_l_given_all: np.ndarray, log_l_given_others: np.ndarray) -> tuple[float, float]:
    """Log p(y_i | y_-i), and its Monte Carlo error, from log l at both samples, (chain, draw) each."""
    log_c = float(np.median(np.concatenate([log_l_given_all.ravel(), log_l_given_others.ravel()])))
    for _ in range(ITERATIONS):
        high, low = expit(log_l_given_others - log_c), expit(log_c - log_l_given_all)  # l / (l + c), c / (l + c)
        step = float(np.log(high.mean()) - np.log(low.mean()))
        log_c += step
        if abs(step) < 1e-10:
            break
    errors = [array_stats.mcse(each, method="mean") / each.mean() for each in (high, low)]
    return log_c, float(np.hypot(*errors))
