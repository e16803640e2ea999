"""Grouped counts to exact posteriors: the reference that the fits of six count models are judged by.

Row i has the count y_i in group g(i); every exposure is 1. Three poolings of the rates:

    pooled         lam ~ Gamma(2, rate 0.2), one rate
    unpooled       lam[g] ~ Gamma(2, rate 0.2), independent
    hierarchical   mu ~ Gamma(2, rate 0.2), sigma ~ Exponential(1), lam[g] ~ Gamma(mean mu, sd sigma)

and two likelihoods, Poisson(lam[g]) or the negative binomial of mean lam[g] and variance
lam[g] + delta^2 lam[g]^2, delta ~ HalfNormal(0.5), one delta for all groups. delta = 0 is the Poisson.

Given an outer node (mu, sigma, delta) the groups are independent, so the joint is a product of one factor
per group, the integral of that group's likelihood over its gamma-distributed lam:

    Z = sum over nodes of weight * prod_g F_g,    F_g = int Gamma(lam) prod_{i in g} p(y_i | lam, delta) dlam

A pooled model has one factor that holds every row, and both it and the unpooled model have one outer node
of (mu, sigma): the gamma prior's own mean and sd. F_g is closed-form for the Poisson; otherwise it is a
trapezoid sum over log lam, written as the matrix product (rows by lam nodes) @ (lam nodes by outer nodes).
The outer rule is the trapezoid on (log mu, log cv), cv = sigma / mu, and composite Gauss-Legendre on delta.

Adding a row to a group, or leaving one out, changes only that group's factor. The exact predictive
densities are therefore posterior means of ratios of factors: Z_{-i} / Z = E[F_g{-i} / F_g] is one over the
leave-one-out density of y_i, and Z_{+i} / Z = E[F_g{+i} / F_g] is the density of a new y_i given all rows.

Halving every step moves no result by 1e-7 on 150 cookies; a new data set of another size deserves the same
check. Nothing here comes from the package under test. The results for the cookies are recorded in
`exact_cookies.json`; a slow test computes them again.
"""

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import binary_dilation
from scipy.special import gammainc, gammaln, logsumexp, xlog1py

LOG_CV = (-9.0, 4.0, 0.1)  # first, last, step; below the first the joint is proportional to cv
LOG_MU_MIN = -6.0  # the prior has 1e-7 of its mass below
COARSE = (16, 3)  # strides in (log mu, log cv) of the pass that finds where the mass is
FINE = (2, 1)  # strides of the final pass
NEGLIGIBLE = 30.0  # nodes this far below the largest log joint are dropped


@dataclass(frozen=True)
class ExactPosterior:
    """Posterior moments and predictive accuracy of one model, free of Monte Carlo error.

    Attributes
    ----------
    log_marginal : log p(y), with the -log y! of every row
    mean, sd : posterior moments by site; lam is () if pooled, else (G,); mu, sigma, delta are ()
    elpd_loo : exact leave-one-out expected log predictive density, summed over rows
    p_loo : log pointwise predictive density less elpd_loo
    elpd : (C,)  leave-one-out log density of one row of each distinct (group, count), in that order
    multiplicity : (C,)  rows of each such cell
    new_group_mean, new_group_sd : of the count of a group not seen; hierarchical only
    """

    log_marginal: float
    mean: dict[str, np.ndarray]
    sd: dict[str, np.ndarray]
    elpd_loo: float
    p_loo: float
    elpd: np.ndarray
    multiplicity: np.ndarray
    new_group_mean: float | None
    new_group_sd: float | None


@dataclass(frozen=True)
class _Rows:
    """Histograms over the distinct counts: of each factor, and of each cell's with a row less or more."""

    count: np.ndarray  # (Y,)  distinct counts
    histogram: np.ndarray  # (F + 2C, Y)  factors; cells left out; cells added
    factor: np.ndarray  # (C,)  the factor that each cell belongs to
    multiplicity: np.ndarray  # (C,)
    num_factors: int


@dataclass(frozen=True)
class _Nodes:
    """Outer nodes: mean and coefficient of variation of the gamma on lam, with log prior weights."""

    log_mu: np.ndarray  # (N,)
    cv: np.ndarray  # (N,)
    log_weight: np.ndarray  # (N,)
    weights: np.ndarray | None = None  # (T, N)  gamma weights of the lam nodes


@functools.cache
def recorded(pooling: str, likelihood: str) -> ExactPosterior:
    """The exact posterior of the cookies, as `exact` computed it."""
    found = json.loads((Path(__file__).parent / "exact_cookies.json").read_text())[f"{pooling} {likelihood}"]
    return ExactPosterior(**{name: _arrays(value) for name, value in found.items()})


def _arrays(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: np.array(each) for name, each in value.items()}
    return np.array(value) if isinstance(value, list) else value


def exact(
    pooling: str,
    likelihood: str,
    counts_by_group: Sequence[np.ndarray],
    *,
    shape: float = 2.0,
    rate: float = 0.2,
    sigma_rate: float = 1.0,
    delta_scale: float = 0.5,
) -> ExactPosterior:
    """Exact posterior of one of the six models.

    Parameters
    ----------
    pooling : ``pooled``, ``unpooled`` or ``hierarchical``
    likelihood : ``poisson`` or ``negative_binomial``
    counts_by_group : one array of counts per group
    shape, rate : of the gamma prior on lam, or on mu if hierarchical
    sigma_rate : of the exponential prior on sigma
    delta_scale : of the half-normal prior on delta
    """
    if pooling not in ("pooled", "unpooled", "hierarchical"):
        raise ValueError(f"pooling is {pooling!r}; use 'pooled', 'unpooled' or 'hierarchical'.")
    if likelihood not in ("poisson", "negative_binomial"):
        raise ValueError(f"likelihood is {likelihood!r}; use 'poisson' or 'negative_binomial'.")
    rows = _rows(counts_by_group, is_pooled=pooling == "pooled")
    log_lam = _log_lam_grid(rows)
    delta, log_prior = _delta_rule(likelihood, delta_scale)
    if pooling == "hierarchical":
        nodes, kept = _where_the_mass_is(rows, log_lam, (shape, rate, sigma_rate), delta, log_prior)
        delta, log_prior = delta[kept], log_prior[kept]
    else:
        nodes = _Nodes(np.log([shape / rate]), np.array([shape**-0.5]), np.zeros(1))
    nodes = _with_gamma_weights(nodes, log_lam) if delta.any() else nodes
    log_given_delta, moments = zip(*(_given_delta(rows, nodes, log_lam, d) for d in delta), strict=True)
    log_z = log_prior + np.array(log_given_delta)
    share = np.exp(log_z - logsumexp(log_z))  # posterior mass of each delta node
    expected = {name: sum(p * m[name] for p, m in zip(share, moments, strict=True)) for name in moments[0]}
    return _summary(rows, logsumexp(log_z), expected, pooling, likelihood)


def _rows(counts_by_group: Sequence[np.ndarray], *, is_pooled: bool) -> _Rows:
    count = np.unique(np.concatenate(counts_by_group))
    by_group = np.array([[np.sum(np.asarray(y) == c) for c in count] for y in counts_by_group], dtype=float)
    group, column = np.nonzero(by_group)  # in order of group, then count
    factors = by_group.sum(axis=0, keepdims=True) if is_pooled else by_group
    factor = np.zeros_like(group) if is_pooled else group
    one_row = np.eye(len(count))[column]
    histogram = np.concatenate([factors, factors[factor] - one_row, factors[factor] + one_row])
    return _Rows(count.astype(float), histogram, factor, by_group[group, column].astype(int), len(factors))


def _log_lam_grid(rows: _Rows) -> np.ndarray:
    total = rows.histogram @ rows.count
    # The joint is nowhere narrower in log mu than 1/sqrt(sum y): two and a half nodes to that width.
    step = 0.4 / np.sqrt(total[: rows.num_factors].sum() + 10.0)
    # A factor falls like lam^total towards lam = 0, or stays near 1: with few counts the grid starts lower.
    first = -9.0 if total.min() > 2 else -16.0
    return np.arange(first, np.log(max(250.0, 4.0 * rows.count.max())) + 1.0, step)


def _delta_rule(likelihood: str, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Nodes of delta with the log of weight times prior density; the Poisson is the one node delta = 0."""
    if likelihood == "poisson":
        return np.zeros(1), np.zeros(1)
    edge = 6.0 * scale * np.linspace(0.0, 1.0, 21) ** 1.5  # panels that widen away from the Poisson
    x, weight = np.polynomial.legendre.leggauss(8)
    half = np.diff(edge)[:, None] / 2
    delta = (edge[:-1, None] + half * (1 + x)).ravel()
    log_density = 0.5 * np.log(2 / np.pi) - np.log(scale) - 0.5 * (delta / scale) ** 2
    return delta, log_density + np.log((half * weight).ravel())


def _outer_nodes(
    log_lam: np.ndarray,
    hyper: tuple[float, float, float],
    stride: tuple[int, int],
    has_mass: np.ndarray | None = None,
) -> _Nodes:
    """Trapezoid on (log mu, log cv), in the marked cells of the coarse grid; a log mu is a log lam node."""
    (shape, rate, sigma_rate), (first, last, step) = hyper, LOG_CV
    log_cv = np.arange(first, last, step * stride[1])
    is_mu = (log_lam >= LOG_MU_MIN) & (log_lam < log_lam[-1] - 1.0)
    log_mu, log_cv = np.meshgrid(log_lam[is_mu][:: stride[0]], log_cv, indexing="ij")
    log_weight = np.log(stride[0] * (log_lam[1] - log_lam[0]) * stride[1] * step) + 0 * log_mu
    log_weight[:, 0] -= np.log(-np.expm1(-step * stride[1]))  # and the geometric tail below
    mu, sigma = np.exp(log_mu), np.exp(log_mu + log_cv)
    log_weight += shape * np.log(rate * mu) - rate * mu - gammaln(shape)
    log_weight += np.log(sigma_rate * sigma) - sigma_rate * sigma
    kept = np.ones(log_mu.shape, dtype=bool)
    if has_mass is not None:
        fine_per_coarse = np.ones([c // f for c, f in zip(COARSE, stride, strict=True)], dtype=bool)
        kept = np.kron(has_mass, fine_per_coarse)[: kept.shape[0], : kept.shape[1]]
    return _Nodes(log_mu[kept], np.exp(log_cv[kept]), log_weight[kept])


def _where_the_mass_is(
    rows: _Rows,
    log_lam: np.ndarray,
    hyper: tuple[float, float, float],
    delta: np.ndarray,
    log_prior: np.ndarray,
) -> tuple[_Nodes, np.ndarray]:
    """Fine outer nodes where a coarse pass finds mass, and a mask of the delta nodes that matter."""
    coarse = _outer_nodes(log_lam, hyper, COARSE)
    weighted = _with_gamma_weights(coarse, log_lam) if delta.any() else coarse
    factors = rows.histogram[: rows.num_factors]
    log_joint = np.array([_log_factors(rows.count, factors, weighted, log_lam, d).sum(axis=0) for d in delta])
    log_joint += coarse.log_weight + log_prior[:, None]  # (D, N)
    has_mass = log_joint > log_joint.max() - NEGLIGIBLE
    on_grid = has_mass.any(axis=0).reshape(len(np.unique(coarse.log_mu)), -1)
    with_neighbours = binary_dilation(on_grid, structure=np.ones((3, 3)))
    return _outer_nodes(log_lam, hyper, FINE, with_neighbours), has_mass.any(axis=1)


def _with_gamma_weights(nodes: _Nodes, log_lam: np.ndarray) -> _Nodes:
    """Add the weights by which a sum over the lam nodes becomes a mean over Gamma(mean mu, sd cv mu)."""
    step = log_lam[1] - log_lam[0]
    a = nodes.cv**-2
    # In place, as this is the one large array: log density a (x - exp x) + constant, x = log(lam / mu)
    weights = np.subtract.outer(log_lam, nodes.log_mu)  # (T, N)
    below = gammainc(a, a * np.exp(weights[0]))  # mass that lies under the grid
    weights += 1.0 - np.multiply.outer(np.exp(log_lam), np.exp(-nodes.log_mu))
    weights *= a
    weights += a * np.log(a) - a - gammaln(a) + np.log(step)
    np.exp(weights, out=weights)
    weights[0] = weights[0] / 2 + below
    narrow = np.flatnonzero(nodes.cv < 1.25 * step)
    centre = np.rint((nodes.log_mu[narrow] - log_lam[0]) / step).astype(int)
    weights[:, narrow] = 0.0
    weights[centre + np.arange(-4, 5)[:, None], narrow] = _moment_weights(nodes.cv[narrow], step)
    return _Nodes(nodes.log_mu, nodes.cv, nodes.log_weight, weights)


def _moment_weights(cv: np.ndarray, step: float) -> np.ndarray:
    """Weights on nine neighbours that match the gamma's first eight moments, for gammas too narrow to sum."""
    moment = [np.ones_like(cv), np.zeros_like(cv)]  # of lam / mu - 1
    for k in range(1, 8):
        moment.append(k * cv**2 * (moment[k] + moment[k - 1]))
    x = np.expm1(step * np.arange(-4, 5)) / step
    power = np.arange(9)[:, None]
    return np.linalg.solve(x**power, np.array(moment) / step**power)  # (9, N)


def _log_factors(
    count: np.ndarray, histogram: np.ndarray, nodes: _Nodes, log_lam: np.ndarray, delta: float, power: int = 0
) -> np.ndarray:
    """Log of int lam^power Gamma(lam) prod p(y | lam, delta) dlam, per histogram and outer node."""
    if delta == 0.0:
        return _log_poisson_factors(count, histogram, nodes, power)
    log_likelihood = histogram @ _log_negative_binomial(count, log_lam, delta) + power * log_lam
    peak = log_likelihood.max(axis=1, keepdims=True)
    used = np.flatnonzero((log_likelihood - peak).max(axis=0) > -1.5 * NEGLIGIBLE)
    columns = slice(used[0], used[-1] + 1)
    mean = np.exp(log_likelihood[:, columns] - peak) @ nodes.weights[columns]
    return peak + np.log(np.maximum(mean, 1e-300))


def _log_negative_binomial(count: np.ndarray, log_lam: np.ndarray, delta: float) -> np.ndarray:
    """Log probability of each count at each lam, in a form that tends to the Poisson as delta does to 0."""
    j = np.arange(count.max())
    rising = np.concatenate([[0.0], np.cumsum(np.log1p(j * delta**2))])[count.astype(int)]
    y = count[:, None]
    log_odds = np.log1p(delta**2 * np.exp(log_lam))
    return rising[:, None] + y * log_lam - (y + delta**-2) * log_odds - gammaln(y + 1)


def _log_poisson_factors(count: np.ndarray, histogram: np.ndarray, nodes: _Nodes, power: int) -> np.ndarray:
    """Conjugacy: Gamma(a + S) / Gamma(a) * b^a / (b + n)^(a + S) / prod y!, with S raised by the power."""
    a = nodes.cv**-2
    n = histogram.sum(axis=1)[:, None]
    s = (histogram @ count)[:, None] + power
    log_factor = _log_rising(a, s) + s * nodes.log_mu - xlog1py(a + s, n * np.exp(nodes.log_mu) / a)
    return log_factor - (histogram @ gammaln(count + 1))[:, None]


def _log_rising(a: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Log of Gamma(a + s) / Gamma(a) / a^s, by Stirling's series where the log-gammas would cancel."""

    def correction(x: np.ndarray) -> np.ndarray:
        return 1 / (12 * x) - 1 / (360 * x**3) + 1 / (1260 * x**5) - 1 / (1680 * x**7)

    series = (a + s - 0.5) * np.log1p(s / a) - s + correction(a + s) - correction(a)
    return np.where(a >= 16, series, gammaln(a + s) - gammaln(a) - s * np.log(a))


def _given_delta(rows: _Rows, nodes: _Nodes, log_lam: np.ndarray, delta: float) -> tuple[float, dict[str, np.ndarray]]:
    """Log p(y | delta) and the posterior means, given delta, of all that the summary needs."""
    num_factors, num_cells = rows.num_factors, len(rows.factor)
    log_factor = _log_factors(rows.count, rows.histogram, nodes, log_lam, delta)  # (F + 2C, N)
    base, less, more = np.split(log_factor, [num_factors, num_factors + num_cells])
    log_joint = nodes.log_weight + base.sum(axis=0)
    log_z = logsumexp(log_joint)
    share = np.exp(log_joint - log_z)  # (N,)
    factors = rows.histogram[:num_factors]
    lam, lam2 = (np.exp(_log_factors(rows.count, factors, nodes, log_lam, delta, k) - base) for k in (1, 2))
    mu, sigma = np.exp(nodes.log_mu), nodes.cv * np.exp(nodes.log_mu)
    at_node = {"lam": lam, "lam2": lam2, "mu": mu, "mu2": mu**2, "sigma": sigma, "sigma2": sigma**2}
    at_node |= {"less": np.exp(less - base[rows.factor]), "more": np.exp(more - base[rows.factor])}
    at_node["new_variance"] = mu + sigma**2 + delta**2 * (mu**2 + sigma**2)  # of a new group's count
    expected = {name: value @ share for name, value in at_node.items()}
    return log_z, expected | {"delta": np.array(delta), "delta2": np.array(delta**2)}


def _summary(
    rows: _Rows, log_marginal: float, expected: dict[str, np.ndarray], pooling: str, likelihood: str
) -> ExactPosterior:
    is_hierarchical = pooling == "hierarchical"
    sites = ["lam"] + ["mu", "sigma"] * is_hierarchical + ["delta"] * (likelihood == "negative_binomial")
    mean = {site: np.asarray(expected[site]) for site in sites}
    sd = {site: np.sqrt(expected[site + "2"] - expected[site] ** 2) for site in sites}
    if pooling == "pooled":
        mean["lam"], sd["lam"] = mean["lam"][0], sd["lam"][0]
    elpd, lppd = -np.log(expected["less"]), np.log(expected["more"])
    elpd_loo = float(rows.multiplicity @ elpd)
    new_sd = np.sqrt(expected["new_variance"] + expected["mu2"] - expected["mu"] ** 2)
    return ExactPosterior(
        log_marginal=float(log_marginal),
        mean=mean,
        sd=sd,
        elpd_loo=elpd_loo,
        p_loo=float(rows.multiplicity @ lppd) - elpd_loo,
        elpd=elpd,
        multiplicity=rows.multiplicity,
        new_group_mean=float(expected["mu"]) if is_hierarchical else None,
        new_group_sd=float(new_sd) if is_hierarchical else None,
    )
