"""A model and its counts to the exact answer: log p(y), posterior moments, leave-one-out and leave-group-out.

Given the hyperparameters h (delta; mu and sigma of a hierarchy; the one rate of a pooled model) the groups are
independent, and everything follows from one factor a group:

    p(y) = int p(h) prod_g F_g(h) dh,    F_g(h) = int p(lam | h) prod_{i in g} p(y_i | lam, delta) dlam
    p(y_i | y_-i) = 1 / E[F_g without the row / F_g],    p(y_g | y_-g) = 1 / E[1 / F_g],    E over p(h | y)

F_g has a closed form for a gamma law of lam and Poisson counts, otherwise it is an integral over log lam (`factors`).
Integrals are trapezoid sums (`quadrature`) in the logarithm of a quantity, or the logit between the bounds of a
Uniform, on nested grids (lam in mu in sigma / mu in delta), each placed where its own integrand lies (`nodes`).

Every result is verified: steps are refined until two in a row agree, and a leave-out with mass at the end of the grid
of all data is integrated again on its own grid. Two results agree if they differ by at most `TOLERANCE`, or `RELATIVE`
times a large |log p(y)|, plus rounding. Refinement stops as soon as it no longer helps.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import logsumexp

from poolwise.checks.exact.factors import MOMENT_LAWS, Factors, GammaLaw, Nodes, Table, factors_of, prior_law, table_of
from poolwise.checks.exact.nodes import RIM, Problem, nodes_of, places_of
from poolwise.checks.exact.quadrature import Modes
from poolwise.counts.cells import Counts
from poolwise.errors import PoolwiseError
from poolwise.model.count_model import SITES, Model
from poolwise.model.priors import PriorValues

TOLERANCE = 1e-5  # of log p(y), elpd_loo and each log p(y_g | y_-g), between two steps; rounding is added to it
RELATIVE = 1e-9  # of log p(y), from 1e4 on: 1e-3 at a million, a hundredth of the Monte Carlo error of an elpd_loo
# relative rounding error of log p(y) in float64, whatever the step; leaving out a row takes the difference of two
ROUNDING = 16 * float(np.finfo(float).eps)
STEPS = (0.62, 0.52, 0.43, 0.35, 0.29, 0.24)  # of t
CUT = 26.0  # nodes are dropped where the log posterior has fallen by this, once groups are left out
FAR = 3e-7  # share of a sum at the ends above which a grid is too short
WORK = 6e8  # points of all leave-outs on their own grids: nodes x cells, x `POINTS` where lam is integrated; seconds
POINTS = 30  # of a grid of lam, about


Array = np.ndarray


class NotExact(PoolwiseError):
    """The quadrature does not converge, or would take longer than seconds."""


@dataclass(frozen=True)
class Exact:
    """The exact answer that a fit is compared with.

    Attributes
    ----------
    log_marginal : log p(y), with the -log y! of every row
    mean, sd : posterior moments by site (lam, mu, sigma, delta), () or (G,); NaN where they do not exist
    elpd_loo : sum over rows of log p(y_i | y_-i)
    cell_elpd : (C,), log p(one row of the cell | all other rows)
    leave_group_out : (G,), log p(y_g | y_-g), of all its rows jointly
    new_group : mean and sd of one count, of exposure 1, of a new group; NaN where they do not exist
    error : largest change of log_marginal, elpd_loo and leave_group_out at the last refinement
    """

    log_marginal: float
    mean: dict[str, Array]
    sd: dict[str, Array]
    elpd_loo: float
    cell_elpd: Array
    leave_group_out: Array
    new_group: tuple[float, float]
    error: float


def reason_against(model: Model, counts: Counts) -> str:
    """Why there is no exact answer within seconds; empty if there is one."""
    if model.likelihood.exact_cells is None:
        return f"none is available for {model.likelihood.title} counts"
    if model.effects:
        return "none is available with covariates"
    most = most_cells(model)
    if counts.num_cells <= most:
        return ""
    return (
        f"{counts.num_cells:,} cells (distinct group, exposure and count); for a {model.name} model it takes too long "
        f"above {most:,}"
    )


def most_cells(model: Model) -> int:
    """Largest number of cells that takes seconds; 0 if there is no exact answer."""
    limits = model.likelihood.exact_cells
    if limits is None:
        return 0
    if not model.pooling.has_population:
        return limits.by_group
    is_conjugate = MOMENT_LAWS[model.pooling.mixing.family].is_conjugate
    return limits.by_population if is_conjugate else limits.by_quadrature


def solve(model: Model, counts: Counts, values: PriorValues) -> Exact:
    """The exact answer of one model; `reason_against` says beforehand if there is none.

    Parameters
    ----------
    values : site -> parameter -> value, from `priors.prior_values`

    Raises
    ------
    NotExact
        Two resolutions do not agree, for example with totals so large that float64 does not resolve their log
        likelihood, or too many leave-outs need their own grid.
    """
    priors = {site: prior_law(family, values[site]) for site, family in model.families}
    cells = counts.cell_group, counts.cell_exposure, counts.cell_count, counts.cell_multiplicity
    table = table_of(
        *cells, is_by_unit=model.likelihood.exact_cells is not None and model.likelihood.exact_cells.is_by_unit
    )
    problem = Problem(model.pooling, priors, table)
    with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
        if model.pooling.is_shared and "delta" not in priors and priors["lam"].gamma is not None:
            return _pooled_gamma_poisson(table, priors["lam"].gamma)
        last = np.inf
        for before, now in itertools.pairwise(_passes(problem)):
            excess = max(_excess(table, before, now))
            is_last = now.is_last or not excess <= max(last / 2, 1.0)  # smaller steps do not help
            result = _result(problem, before, now, is_last=is_last)
            if result is not None and result.error <= _tolerance(now) + _rounding(now) * table.rows.sum():
                return result
            if is_last:
                break
            last = excess
    raise NotExact(
        f"{counts.name}: the quadrature of {model.name} does not converge: between two grids log p(y) moves by "
        f"{_change(before, now):.1g}, or the grids do not hold the posterior."
    )


def _pooled_gamma_poisson(table: Table, law: GammaLaw) -> Exact:
    """One rate with a gamma prior and Poisson counts: all in closed form."""
    total, exposure, constant = table.group_total.sum(), table.group_exposure.sum(), table.constant(None)
    whole = law.log_integral(total, exposure)
    less_row = law.log_integral(total - table.count, np.maximum(exposure - table.exposure, 0.0))
    less_group = law.log_integral(total - table.group_total, np.maximum(exposure - table.group_exposure, 0.0))
    cell_elpd = whole - less_row + constant[:, 0]
    shape, rate = 1 / law.cv2 + total, np.exp(-law.log_mu) / law.cv2 + exposure
    return Exact(
        log_marginal=float(whole + table.rows @ constant[:, 0]),
        mean={"lam": shape / rate},
        sd={"lam": np.sqrt(shape) / rate},
        elpd_loo=float(table.rows @ cell_elpd),
        cell_elpd=cell_elpd,
        leave_group_out=whole - less_group + table.of_rows(constant)[:, 0],
        new_group=(float(shape / rate), float(np.sqrt(shape / rate + shape / rate**2))),
        error=0.0,
    )


# Passes: all integrals at one step, then at a finer one, until nothing moves.


@dataclass(frozen=True)
class _Pass:
    """Results at one step; `far` marks leave-outs with mass at the ends of a grid."""

    is_last: bool
    work: float  # points at which a density is computed
    log_z: float
    end: float  # share of the posterior at the ends of a grid
    cell_elpd: Array  # (C,)
    cell_is_far: Array
    left_out: Array  # (G,)
    group_is_far: Array
    mean: dict[str, Array]
    square: dict[str, Array]  # E x^2


def _passes(problem: Problem) -> Iterator[_Pass]:
    places = places_of(problem)
    yield from (_integrate(problem, places, step) for step in STEPS)


def _log_marginal(problem: Problem) -> tuple[float, float]:
    """Log p(y) with its error; 0 if there is no row."""
    log_z, error = 0.0, 0.0
    if len(problem.table.rows):
        for before, now in itertools.pairwise(_passes(problem)):
            log_z, error = now.log_z, _change(before, now)
            if error < _tolerance(now) / 100 + _rounding(now):
                break
    return log_z, error


def _tolerance(now: _Pass) -> float:
    """Change between two steps that is allowed."""
    return max(TOLERANCE, RELATIVE * abs(now.log_z))


def _rounding(now: _Pass) -> float:
    """Rounding error of log p(y)."""
    return ROUNDING * abs(now.log_z)


def _change(before: _Pass, now: _Pass) -> float:
    """Bound on the remaining error of log p(y)."""
    return abs(now.log_z - before.log_z) + now.end


def _excess(table: Table, before: _Pass, now: _Pass) -> tuple[float, float]:
    """Largest change over the allowed one: of log p(y), and of leave-outs whose mass the grids hold."""
    limit, rounding = _tolerance(now) / 2, _rounding(now)
    of_cell = table.rows * abs(now.cell_elpd - before.cell_elpd) / (limit / 20 + table.rows * rounding)
    of_group = abs(now.left_out - before.left_out) / (limit + rounding)
    held = np.concatenate([of_cell[~now.cell_is_far & ~_is_alone(table)], of_group[~now.group_is_far]])
    return _change(before, now) / (limit + rounding), float(np.nan_to_num(held, nan=np.inf).max(initial=0.0))


def _is_alone(table: Table) -> Array:
    """Cells whose one row is its group, (C,)."""
    return table.group_rows[table.group] == 1


def _result(problem: Problem, before: _Pass, now: _Pass, *, is_last: bool) -> Exact | None:
    """Two passes as one answer, the leave-outs that have not converged integrated separately; None: refine."""
    table, limit, rounding = problem.table, _tolerance(now) / 2, _rounding(now)
    cell_elpd, left_out = now.cell_elpd.copy(), now.left_out.copy()
    cell_error, group_error = table.rows * abs(cell_elpd - before.cell_elpd), abs(left_out - before.left_out)
    cell_is_open = ~(cell_error <= limit / 20 + table.rows * rounding)
    group_is_open = ~(group_error <= limit + rounding)
    is_alone, whole_error = _is_alone(table), _change(before, now)
    whole, held = _excess(table, before, now)
    if not whole <= 1 or (held > 1 and not is_last):
        return None
    groups_alone = np.flatnonzero(group_is_open | now.group_is_far)
    cells_alone = np.flatnonzero((cell_is_open | now.cell_is_far) & ~is_alone)
    if (len(groups_alone) + len(cells_alone)) * now.work > WORK:
        raise NotExact(
            f"{len(cells_alone)} left-out rows, {len(groups_alone)} left-out groups need their own quadrature, "
            f"which takes too long; log p(y) is {now.log_z:.2f}."
        )
    for g in groups_alone:
        rest, error = _log_marginal(problem.without(table.rows * (table.group == g)))
        left_out[g], group_error[g] = now.log_z - rest, error + whole_error
    cell_elpd[is_alone], cell_error[is_alone] = (each[table.group[is_alone]] for each in (left_out, group_error))
    for c in cells_alone:
        rest, error = _log_marginal(problem.without(np.arange(len(table.rows)) == c))
        cell_elpd[c], cell_error[c] = now.log_z - rest, table.rows[c] * (error + whole_error)
    mean, sd = _moments(before, now)
    return Exact(
        log_marginal=now.log_z,
        mean={site: mean[site] for site in SITES if site in mean},
        sd={site: sd[site] for site in SITES if site in sd},
        elpd_loo=float(table.rows @ cell_elpd),
        cell_elpd=cell_elpd,
        leave_group_out=left_out,
        new_group=(float(mean["new"]), float(sd["new"])),
        error=float(max(whole_error, cell_error.sum(), group_error.max())),
    )


def _moments(before: _Pass, now: _Pass) -> tuple[dict[str, Array], dict[str, Array]]:
    """Means and standard deviations; NaN if a moment does not converge, for example because it does not exist."""
    mean, sd = {}, {}
    for site, first in now.mean.items():
        second = now.square[site]
        has_mean = abs(first - before.mean[site]) <= TOLERANCE * first
        has_sd = has_mean & (abs(second - before.square[site]) <= TOLERANCE * second)
        mean[site] = np.where(has_mean, first, np.nan)
        sd[site] = np.sqrt(np.where(has_sd, np.maximum(second - first**2, 0.0), np.nan))
    return mean, sd


def _integrate(problem: Problem, places: dict[str, Modes], step: float) -> _Pass:
    """One pass: leave-group-out from all nodes, everything else from those that matter to the posterior."""
    nodes = nodes_of(problem, places, step)
    is_closed = nodes.delta is None and isinstance(nodes.law, GammaLaw)
    work = float(len(nodes.which) * len(problem.table.rows) * (1 if is_closed else POINTS))
    log_f = factors_of(problem.table, nodes, step, with_cells=False).log_f
    joint = nodes.log_weight + log_f.sum(axis=0)  # (N,)
    log_z, without = logsumexp(joint), joint - log_f
    log_rest = logsumexp(without, axis=1)  # (G,)
    group_end = np.exp(without - log_rest[:, None]) @ nodes.is_end
    fall = joint.max() - joint
    nodes = replace(nodes, is_end=nodes.is_end | (fall > CUT - RIM)).at(fall < CUT)
    factors = factors_of(problem.table, nodes, step, with_cells=problem.with_cells)
    share = np.exp(joint[fall < CUT] - log_z)
    less = factors.less + np.log(share)  # (C, N)
    log_less = logsumexp(less, axis=1)
    cell_end = np.sum(np.exp(less - log_less[:, None]) * np.where(nodes.is_end, 1.0, factors.less_end), axis=1)
    mean, square = _expectations(problem, nodes, factors, share)
    return _Pass(
        is_last=step == STEPS[-1],
        work=work,
        log_z=float(log_z),
        end=float(share @ nodes.is_end),
        cell_elpd=-log_less,
        cell_is_far=~(cell_end <= FAR),
        left_out=log_z - log_rest,
        group_is_far=~(group_end <= FAR),
        mean=mean,
        square=square,
    )


def _expectations(
    problem: Problem, nodes: Nodes, factors: Factors, share: Array
) -> tuple[dict[str, Array], dict[str, Array]]:
    """E x and E x^2 of every site and of a new group's count; NaN if they depend on the ends of a grid."""

    def expectation(value: Array, end: Array | float = 0.0) -> Array:
        total, at_end = value @ share, np.where(nodes.is_end, value, end) @ share
        return np.where(np.isfinite(total) & (at_end <= FAR * total), total, np.nan)

    mean = {site: expectation(x) for site, x in nodes.values.items()}
    square = {site: expectation(x**2) for site, x in nodes.values.items()}
    mean["lam"] = expectation(factors.lam, factors.lam_end)
    square["lam"] = expectation(factors.square, factors.square_end)
    if problem.pooling.is_shared:
        mean["lam"], square["lam"] = mean["lam"][0], square["lam"][0]
        rate, rate_square = factors.lam[0], factors.square[0]
    elif not problem.pooling.has_population:
        law = problem.priors["lam"].law
        rate, rate_square = np.full(len(share), law.mean()), np.full(len(share), law.var() + law.mean() ** 2)
    else:
        rate, rate_square = nodes.values["mu"], nodes.values["mu"] ** 2 + nodes.values["sigma"] ** 2
    mean["new"] = expectation(rate)  # given rate and delta a count has this mean, and variance rate + (delta rate)^2
    square["new"] = expectation(rate + (1 + nodes.values.get("delta", 0.0) ** 2) * rate_square)
    return mean, square
