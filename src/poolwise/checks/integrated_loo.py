"""Leave-one-out values with the rates integrated out: integrated importance sampling.

PSIS-LOO weights the draws by 1 / p(y_i | lam[g]), which fails if row i holds most of the information on lam[g]. With h
the parameters that are not rates and F(rows; h) = int p(rows | lam, h) p(lam | h) dlam,

    p(y_i | y_-i) = 1 / E[1 / p(y_i | y_{g,-i}, h)],    p(y_i | y_{g,-i}, h) = F(y_g; h) / F(y_{g,-i}; h),

an expectation over the same posterior whose weights vary only with h. The other rows of the group remain. A pooled
model is one group; without h (pooled or unpooled Poisson) the value is exact. With the same weights,

    P(Y < y_i | y_-i) = E[P(Y < y_i | y_{g,-i}, h) / p(y_i | y_{g,-i}, h)] p(y_i | y_-i),

with P(Y < y_i | y_{g,-i}, h) a mean over rates from their law given y_{g,-i} and h.

References
----------
Vehtari et al. (2016), Bayesian leave-one-out cross-validation approximations for Gaussian latent variable models,
JMLR 17(103). Merkle, Furr and Rabe-Hesketh (2019), Psychometrika 84, doi:10.1007/s11336-019-09679-0.
"""

import functools
import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import xarray as xr

from poolwise.checks.loo import Loo, loo_below, pareto_k_limit, psis_loo, weighted_sum
from poolwise.inference import predictive
from poolwise.model.count_model import Model
from poolwise.model.marginal_quadrature import NODES, RateIntegral, Rows
from poolwise.model.priors import PriorValues

type Kind = tuple[Rows, float, int]  # rows of a rate, exposure and count of the left-out row
type Kinds = tuple[Kind, ...]
# k-hat has a standard error near 0.3. Rows with a true k of 0.8 that happen to show 0.5 are those whose tail was
# missed, so their elpd is worst: a fit is in doubt above 0.4, not above the 0.7 threshold
INTEGRATE_ABOVE_K = 0.4
EVEN = 5.0  # weights up to this many times their mean are even: at k = 0.4 the largest of 16000 is near 30 times
# nodes times draws of all left-out rows, half a minute; more rows use fewer draws, at least LEAST: the weights vary
# little
WORK, LEAST = 2**31, 1000
BELOW_WORK, BELOW_DRAWS = 2**29, 4000  # of `integrated_below`: half a minute; most draws of h and of a rate
GOLDEN = (5**0.5 - 1) / 2  # multiples modulo 1 are spread evenly, whatever h does along the draws


def integrated_where_doubtful(
    loo: Loo, posterior: xr.Dataset, cells: xr.Dataset, model: Model, values: PriorValues, *, r_eff: float
) -> Loo:
    """All values with the rates integrated out, if PSIS is doubtful for some rows.

    One estimator per fit: mixing both would keep the unseen errors of PSIS, which all have one sign. The weights vary
    with h alone, so they are never less even than those of PSIS; where their Pareto k is larger, PSIS has missed the
    tail. Identical rows in identical groups are computed once.

    Parameters
    ----------
    loo : of PSIS
    cells : the `constant_data` of `datatree.to_tree`
    r_eff : as for `psis_loo`
    """
    if not (~(loo.pareto_k <= INTEGRATE_ABOVE_K)).any():
        return loo
    kinds, which = kinds_of(cells, model)
    weight = np.bincount(which, cells["cell_multiplicity"].values)  # (K,), rows
    again = _integrated(kinds, weight, integral_of(posterior, model, values), r_eff=r_eff)
    if not np.isfinite(again.cell_elpd).all():
        return loo
    return replace(
        again,
        p_loo=loo.elpd + loo.p_loo - again.elpd,  # lppd is unchanged
        cell_elpd=again.cell_elpd[which],
        pareto_k=again.pareto_k[which],
        psis=loo,
    )


def integrated_below(
    posterior: xr.Dataset, cells: xr.Dataset, model: Model, values: PriorValues, *, r_eff: float
) -> np.ndarray:
    """P(Y < y_c | all other rows) of each cell, (C,), with the weights of the integrated values: for LOO-PIT."""
    kinds, which = kinds_of(cells, model)
    integral = integral_of(posterior, model, values)
    if not integral.drawn:
        place = (np.arange(BELOW_DRAWS) + 0.5) / BELOW_DRAWS
        return np.array([_below(kind, integral, place).mean() for kind in kinds])[which]
    integral, stride = _thinned(kinds, integral)
    num_chains, length = next(iter(integral.drawn.values())).shape
    affordable = np.clip(BELOW_WORK // sum(NODES * len(rows.count) for rows, _, _ in kinds), LEAST, BELOW_DRAWS)
    draws = predictive.evenly_spaced(length, int(affordable) // num_chains)
    some = replace(integral, drawn={name: value[:, draws] for name, value in integral.drawn.items()})
    place = np.arange(1, num_chains * len(draws) + 1).reshape(num_chains, -1) * GOLDEN % 1.0
    with np.errstate(divide="ignore"):  # P(Y < 0) = 0
        log_below = loo_below(
            (each[None] for each in rows_given_rest(kinds, integral)),
            (np.log(_below(kind, some, place))[None] for kind in kinds),
            draws=draws,
            r_eff=min(1.0, r_eff * stride),
        )
    return np.exp(log_below)[which]


def _below(kind: Kind, integral: RateIntegral, place: np.ndarray) -> np.ndarray:
    """P(Y < count) of a row of the kind at one rate per place, drawn given the other rows and h."""
    rows, exposure, count = kind
    rate = integral.rates(rows.less_one(exposure, count), place)
    params = {name: integral.drawn[name] for name in integral.likelihood.parameters}
    return integral.likelihood.below(np.array(float(count)), exposure * rate, params)


def integral_of(posterior: xr.Dataset, model: Model, values: PriorValues) -> RateIntegral:
    """The integral over a rate at the draws of a labelled posterior."""
    draws = {site: posterior[site].transpose("chain", "draw").values for site in RateIntegral.sites(model, values)}
    return RateIntegral.of(model, values, draws)


def _integrated(kinds: Kinds, weight: np.ndarray, integral: RateIntegral, *, r_eff: float) -> Loo:
    """LOO of one row of each kind; exact, with k = 0, if there is no h."""
    drawn = integral.drawn
    if not drawn:
        exact = np.array([float(each) for each in rows_given_rest(kinds, integral)])
        elpd, se = weighted_sum(exact, weight)
        return Loo(elpd, se, 0.0, 0.0, exact, np.zeros(len(kinds)), pareto_k_limit(np.inf), 0)
    integral, stride = _thinned(kinds, integral)
    even = []

    def blocks() -> Iterator[np.ndarray]:
        size = max(1, predictive.BLOCK // next(iter(integral.drawn.values())).size)
        for some in itertools.batched(rows_given_rest(kinds, integral), size):
            block = np.stack(some)
            even.append(_is_even(block))
            yield block

    found = psis_loo(blocks(), weight, r_eff=min(1.0, r_eff * stride))
    pareto_k = np.where(np.concatenate(even), 0.0, found.pareto_k)  # even weights have no tail to fit
    return replace(found, pareto_k=pareto_k, bad_rows=int(weight[~(pareto_k <= found.k_threshold)].sum()))


def _thinned(kinds: Kinds, integral: RateIntegral) -> tuple[RateIntegral, float]:
    """The integral at all draws, or at evenly spaced ones if all would take minutes; and the draws per one."""
    num_chains, length = next(iter(integral.drawn.values())).shape
    per_draw = 2 * sum(integral.work(rows) for rows, _, _ in kinds)
    kept = predictive.evenly_spaced(length, max(WORK // per_draw, LEAST) // num_chains)
    return replace(integral, drawn={name: value[:, kept] for name, value in integral.drawn.items()}), length / len(kept)


def kinds_of(cells: xr.Dataset, model: Model) -> tuple[Kinds, np.ndarray]:
    """Rows with the same probability given all others of their rate, and the kind of each cell, (C,)."""
    group, *columns = (cells[f"cell_{name}"].values for name in ("group", "exposure", "count", "multiplicity"))
    group = np.zeros_like(group) if model.pooling.is_shared else group
    found: dict[Kind, int] = {}
    which = np.zeros(len(group), int)
    for of_group in np.split(np.argsort(group, kind="stable"), np.flatnonzero(np.diff(np.sort(group))) + 1):
        rows = Rows.of(*(column[of_group] for column in columns))
        for cell in of_group:
            kind = rows, float(columns[0][cell]), int(columns[1][cell])
            which[cell] = found.setdefault(kind, len(found))
    return tuple(found), which


def rows_given_rest(kinds: Kinds, integral: RateIntegral) -> Iterator[np.ndarray]:
    """Log p(one row of the kind | other rows of its rate, h), each (chain, draw) or ()."""
    # a group has several kinds, and groups without one row repeat each other
    log_marginal = functools.lru_cache(maxsize=128)(integral.log_marginal)
    for rows, exposure, count in kinds:
        yield log_marginal(rows) - log_marginal(rows.less_one(exposure, count))


def _is_even(block: np.ndarray) -> np.ndarray:
    """Whether the weights exp(-block) are even, (B,)."""
    relative = np.exp(block.min(axis=(1, 2), keepdims=True) - block)  # relative to the largest weight
    return relative.mean(axis=(1, 2)) * EVEN >= 1
