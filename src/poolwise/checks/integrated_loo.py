"""Leave-one-out values with the rates integrated out: integrated importance sampling.

PSIS-LOO weights the draws by 1 / p(y_i | lam[g]), which fails if row i holds most of the information on lam[g]. With h
the parameters that are not rates and F(rows; h) = int p(rows | lam, h) p(lam | h) dlam,

    p(y_i | y_-i) = 1 / E[1 / p(y_i | y_{g,-i}, h)],    p(y_i | y_{g,-i}, h) = F(y_g; h) / F(y_{g,-i}; h),

an expectation over the same posterior whose weights vary only with h. The other rows of the group remain. A pooled
model is one group; without h (pooled or unpooled Poisson) the value is exact. With the same weights,

    P(Y < y_i | y_-i) = E[P(Y < y_i | y_{g,-i}, h) / p(y_i | y_{g,-i}, h)] p(y_i | y_-i),

with P(Y < y_i | y_{g,-i}, h) exact where the rate has a gamma law given y_{g,-i} and h (Poisson counts: a negative
binomial probability), else a mean over rates from that law.

References
----------
Vehtari et al. (2016), Bayesian leave-one-out cross-validation approximations for Gaussian latent variable models,
JMLR 17(103). Merkle, Furr and Rabe-Hesketh (2019), Psychometrika 84, doi:10.1007/s11336-019-09679-0.
"""

import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import xarray as xr

from poolwise.checks.loo import Loo, loo_below, pareto_k_limit, psis_loo, weighted_sum
from poolwise.counts.cells import Counts, run_starts
from poolwise.counts.statistics import codes
from poolwise.inference import predictive
from poolwise.inference.rates import evenly_spaced
from poolwise.model.count_model import Model
from poolwise.model.likelihoods.negative_binomial import NEGATIVE_BINOMIAL
from poolwise.model.marginal_quadrature import NODES, RateIntegral, Rows
from poolwise.model.priors import PriorValues

type Kind = tuple[Rows, int]  # rows of a rate, and the place among them of the cell of the left-out row
type Kinds = tuple[Kind, ...]
# k-hat has a standard error near 0.3. Rows with a true k of 0.8 that happen to show 0.5 are those whose tail was
# missed, so their elpd is worst: a fit is in doubt above 0.4, not above the 0.7 threshold
INTEGRATE_ABOVE_K = 0.4
EVEN = 5.0  # weights up to this many times their mean are even: at k = 0.4 the largest of 16000 is near 30 times
# nodes times draws of all left-out rows, half a minute; more rows use fewer draws, at least LEAST: the weights vary
# little
WORK, LEAST = 2**31, 1000
SMOOTHED = 2**23  # kinds times draws of smoothed weights, seconds
BELOW_WORK, BELOW_DRAWS = 2**29, 4000  # of `integrated_below`: half a minute; most draws of h and of a rate
GOLDEN = (5**0.5 - 1) / 2  # multiples modulo 1 are spread evenly, whatever h does along the draws


def integrated_where_doubtful(
    loo: Loo, posterior: xr.Dataset, counts: Counts, model: Model, values: PriorValues, *, r_eff: float
) -> Loo:
    """All values with the rates integrated out, if PSIS is doubtful for some rows.

    One estimator per fit: mixing both would keep the unseen errors of PSIS, which all have one sign. The weights vary
    with h alone, so they are never less even than those of PSIS; where their Pareto k is larger, PSIS has missed the
    tail. Identical rows in groups that are alike are computed once.

    Parameters
    ----------
    loo : of PSIS; or `loo.not_computed`
    r_eff : as for `psis_loo`
    """
    if not (~(loo.pareto_k <= INTEGRATE_ABOVE_K)).any():
        return loo
    kinds, which = kinds_of(counts, model)
    weight = np.bincount(which, counts.cell_multiplicity)  # (K,), rows
    integral = integral_of(posterior, model, values)
    again = _integrated(kinds, weight, integral, r_eff=r_eff)
    if not np.isfinite(again.cell_elpd).all():
        return loo
    lppd = loo.elpd + loo.p_loo if np.isfinite(loo.elpd) else weight @ _log_predictive(kinds, integral)
    return replace(
        again,
        p_loo=float(lppd - again.elpd),
        cell_elpd=again.cell_elpd[which],
        pareto_k=again.pareto_k[which],
        psis=loo,
    )


def integrated_below(
    posterior: xr.Dataset, counts: Counts, model: Model, values: PriorValues, *, r_eff: float
) -> np.ndarray:
    """P(Y < y_c | all other rows) of each cell, (C,), with the weights of the integrated values: for LOO-PIT."""
    kinds, which = kinds_of(counts, model)
    integral = integral_of(posterior, model, values)
    if not integral.drawn:
        place = (np.arange(BELOW_DRAWS) + 0.5) / BELOW_DRAWS
        return np.array([_below(kind, integral, place).mean() for kind in kinds])[which]
    affordable = BELOW_WORK // sum(NODES * len(rows.count) for rows, _ in kinds)
    integral, stride = _at_some(integral, int(np.clip(affordable, LEAST, BELOW_DRAWS)))
    place = np.mod(np.arange(1, math.prod(integral.shape) + 1).reshape(integral.shape) * GOLDEN, 1.0)
    with np.errstate(divide="ignore"):  # P(Y < 0) = 0
        log_below = loo_below(
            (rows_given_rest(block, integral) for block in _blocks(kinds, integral)),
            (np.log([_below(kind, integral, place) for kind in block]) for block in _blocks(kinds, integral)),
            r_eff=min(1.0, r_eff * stride),
        )
    return np.exp(log_below)[which]


def _below(kind: Kind, integral: RateIntegral, place: np.ndarray) -> np.ndarray:
    """P(Y < count) of a row of the kind given the other rows and h: exact, or at one rate per place."""
    rows, cell = kind
    rest, number, size = rows.plus(cell, -1), np.array(float(rows.count[cell])), integral.exposures(rows)[cell]
    gamma = integral.gammas([rest])
    if gamma is not None:
        mean, shape = (np.broadcast_to(each, place.shape) for each in (size * gamma.mean[0], gamma.shape[0]))
        return NEGATIVE_BINOMIAL.below(number, mean, {"phi": shape})
    params = {name: integral.drawn[name] for name in integral.likelihood.parameters}
    at_row = integral.likelihood.at(params, rows.exposure[cell])
    return integral.likelihood.below(number, size * integral.rates(rest, place), at_row)


def integral_of(posterior: xr.Dataset, model: Model, values: PriorValues) -> RateIntegral:
    """The integral over a rate at the draws of a labelled posterior."""
    draws = {site: posterior[site].transpose("chain", "draw").values for site in RateIntegral.sites(model, values)}
    return RateIntegral.of(model, values, draws)


def _integrated(kinds: Kinds, weight: np.ndarray, integral: RateIntegral, *, r_eff: float) -> Loo:
    """LOO of one row of each kind; exact, with k = 0, if there is no h."""
    if not integral.drawn:
        exact = rows_given_rest(kinds, integral)
        elpd, se = weighted_sum(exact, weight)
        return Loo(elpd, se, 0.0, 0.0, exact, np.zeros(len(kinds)), pareto_k_limit(np.inf), 0)
    integral, stride = _thinned(kinds, integral)
    even = []

    def blocks() -> Iterator[np.ndarray]:
        for some in _blocks(kinds, integral):
            block = rows_given_rest(some, integral)
            even.append(_is_even(block))
            yield block

    found = psis_loo(blocks(), weight, r_eff=min(1.0, r_eff * stride))
    pareto_k = np.where(np.concatenate(even), 0.0, found.pareto_k)  # even weights have no tail to fit
    return replace(found, pareto_k=pareto_k, bad_rows=int(weight[~(pareto_k <= found.k_threshold)].sum()))


def _log_predictive(kinds: Kinds, integral: RateIntegral) -> np.ndarray:
    """Log p(another row of the kind | all rows), (K,)."""
    integral, _ = _thinned(kinds, integral)
    found = [_of_row(some, integral, rest=0) for some in _blocks(kinds, integral)]
    return np.concatenate([np.log(np.mean(np.exp(each), axis=tuple(range(1, each.ndim)))) for each in found])


def _thinned(kinds: Kinds, integral: RateIntegral) -> tuple[RateIntegral, float]:
    """The integral at all draws, or at evenly spaced ones if all would take minutes; and the draws per one."""
    if not integral.drawn:
        return integral, 1.0
    per_draw = 2 * sum(integral.work(rows) for rows, _ in kinds)
    return _at_some(integral, max(min(WORK // per_draw, SMOOTHED // len(kinds)), LEAST))


def _at_some(integral: RateIntegral, num_draws: int) -> tuple[RateIntegral, float]:
    """The integral at so many evenly spaced draws, and the draws per one."""
    num_chains, length = integral.shape
    kept = evenly_spaced(length, num_draws // num_chains)
    return replace(integral, drawn={name: value[:, kept] for name, value in integral.drawn.items()}), length / len(kept)


def _blocks(kinds: Kinds, integral: RateIntegral) -> Iterator[Kinds]:
    """The kinds in blocks whose values at all draws can be held at once."""
    return itertools.batched(kinds, max(1, predictive.BLOCK // max(1, math.prod(integral.shape))))


@functools.lru_cache(maxsize=2)  # of a large table it takes a second, and a run asks three times
def kinds_of(counts: Counts, model: Model) -> tuple[Kinds, np.ndarray]:
    """Rows with the same probability given all others of their rate, and the kind of each cell, (C,)."""
    group = np.zeros_like(counts.cell_group) if model.pooling.is_shared else counts.cell_group
    statistics = model.likelihood.statistics
    of_group = np.zeros(1, int) if model.pooling.is_shared else statistics.alike(counts).kind
    columns = of_group[group], counts.cell_exposure, *counts.cell_x.T, counts.cell_count
    _, first, which = np.unique(codes(*columns), return_index=True, return_inverse=True)
    bounds = np.append(run_starts(group), len(group))  # cells are in the order of the groups
    rows_of = functools.cache(lambda g: Rows.of(counts, np.arange(int(bounds[g]), int(bounds[g + 1]))))

    def kind(cell: np.int64) -> Kind:
        rows, x = rows_of(group[cell]), tuple(counts.cell_x[cell].tolist()) if counts.effects else ()
        return rows, rows.kinds.index((float(counts.cell_exposure[cell]), x, int(counts.cell_count[cell])))

    return tuple(map(kind, first)), which


def rows_given_rest(kinds: Kinds, integral: RateIntegral) -> np.ndarray:
    """Log p(one row of the kind | other rows of its rate, h), (K, chain, draw) or (K,)."""
    return _of_row(kinds, integral, rest=-1)


def _of_row(kinds: Kinds, integral: RateIntegral, *, rest: int) -> np.ndarray:
    """Log p(a row of the kind | its rows and `rest` more of its kind, h)."""
    gamma = integral.gammas([rows.plus(cell, rest) for rows, cell in kinds])
    if gamma is not None:
        log_prob, shape = predictive.log_prob_of(NEGATIVE_BINOMIAL), (-1, *(1 for _ in integral.shape))
        count = np.reshape([float(rows.count[cell]) for rows, cell in kinds], shape)
        size = np.array([integral.exposures(rows)[cell] for rows, cell in kinds])
        size = size if integral.effects else size.reshape(shape)
        return np.asarray(log_prob(count, size * gamma.mean, {"phi": gamma.shape}))
    pairs = [tuple(rows.plus(cell, number) for number in (rest, rest + 1)) for rows, cell in kinds]
    distinct = list(dict.fromkeys(itertools.chain.from_iterable(pairs)))  # each F is computed once
    place = {rows: i for i, rows in enumerate(distinct)}
    log_marginal = integral.log_marginals(distinct)
    low, high = np.array([[place[rows] for rows in pair] for pair in pairs]).T
    return log_marginal[high] - log_marginal[low]


def _is_even(block: np.ndarray) -> np.ndarray:
    """Whether the weights exp(-block) are even, (B,)."""
    relative = np.exp(block.min(axis=(1, 2), keepdims=True) - block)  # relative to the largest weight
    return relative.mean(axis=(1, 2)) * EVEN >= 1
