"""Negative binomial counts with gamma rates: the rates integrated out, and the rates given everything else.

Relative to its mean, the rate of a group is w = lam / mu ~ Gamma(a, a), a = mu^2 / sigma^2. With n_t rows of total S_t
in stratum t of the group, the integral over the rate is

    a^a / Gamma(a) exp(-a) mu^S  int exp h(v) dv,    v = log w,
    h(v) = S v - a (exp v - 1 - v) - sum_t m_t log1p(c_t exp v),    m_t = S_t + n_t phi,    c_t = e_t mu / phi,

which has no closed form. Since h is concave, the integral is a short sum over nodes between the two points where the
integrand becomes negligible, equally spaced under an exponential map that takes the mode to the middle. As h' exp h
integrates to 0, exp h may be multiplied by 1 - h' / k, k = a + S: this removes the left tail exp(k v), which is very
long for a group without a count and a small a. The nodes are fixed under differentiation, because the integral does
not depend on them. Nothing here cancels for small sigma or delta: a and phi may be 1e30.

References
----------
Trefethen and Weideman (2014), The exponentially convergent trapezoidal rule, SIAM Review 56(3), doi:10.1137/130932132.
Devroye (1986), Non-Uniform Random Variate Generation, section VII.2: rejection from a log-concave density.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

from poolwise.model.likelihoods.base import Curve, over_groups, over_values
from poolwise.model.special import exp_remainder, log_gamma_scale

Arrays = Mapping[str, jax.Array]

NODES = 32  # relative error at most 1e-8 where mu, sigma and delta have 99.9% of the notebook's prior
DROP = 26.0  # of the log integrand, from the mode to the cut: exp(-26) = 5e-12
MODE_STEPS, END_STEPS = 5, 4  # of Newton; they only place the nodes, so few digits suffice


class _Terms(NamedTuple):
    """Terms of h; columns of groups (G, 1) and of strata (T, 1)."""

    shape: jax.Array  # a
    total: jax.Array  # S
    power: jax.Array  # m_t
    ratio: jax.Array  # c_t
    group: jax.Array | None  # (T,) of each stratum; None if every group is one stratum


class _At(NamedTuple):
    """H and its derivatives at some v, each (G, n)."""

    height: jax.Array  # h
    slope: jax.Array  # h'
    pull: jax.Array  # k - h' > 0
    curvature: jax.Array  # -h'' > 0


def log_marginal(statistics: Arrays, mu: jax.Array, shape: jax.Array, concentration: jax.Array) -> jax.Array:
    """Log probability of all rows of negative binomial counts with the rates integrated out, ().

    Parameters
    ----------
    statistics : see `counts.statistics.sufficient_statistics`
    mu : (), mean of the rates
    shape : (), a = mu^2 / sigma^2
    concentration : (), phi
    """
    terms = _terms(statistics, mu, shape, concentration)
    by_group = statistics["group_total"] * jnp.log(mu) + log_gamma_scale(shape) + _log_integral(terms)
    return over_groups(by_group, statistics) + over_values(concentration, statistics) + statistics["constant"]


def draw_rates(
    key: jax.Array, statistics: Arrays, mu: jax.Array, shape: jax.Array, concentration: jax.Array
) -> jax.Array:
    """The rates given negative binomial counts and everything else: independent draws (G,), exact."""
    return mu * jnp.exp(_draw_log(key, _terms(statistics, mu, shape, concentration)))


def _terms(statistics: Arrays, mu: jax.Array, shape: jax.Array, concentration: jax.Array) -> _Terms:
    total = statistics["group_total"][:, None]  # (G, 1)
    power = statistics["stratum_total"] + statistics["stratum_rows"] * concentration
    ratio = statistics["stratum_exposure"] * mu / concentration
    one_each = total.shape[0] == ratio.shape[0]
    group = None if one_each else statistics["stratum_group"]
    return _Terms(jnp.broadcast_to(shape, total.shape), total, power[:, None], ratio[:, None], group)


def _at(terms: _Terms, v: jax.Array) -> _At:
    """h, h', k - h' and -h'' at v (G, n)."""
    w = jnp.exp(v)
    odds = terms.ratio * (w if terms.group is None else w[terms.group])  # (T, n)
    share = terms.power * odds / (1.0 + odds)
    taken = _by_group(terms, share)
    return _At(
        height=terms.total * v - terms.shape * exp_remainder(v) - _by_group(terms, terms.power * jnp.log1p(odds)),
        slope=terms.total - terms.shape * jnp.expm1(v) - taken,
        pull=terms.shape * w + taken,
        curvature=terms.shape * w + _by_group(terms, share / (1.0 + odds)),
    )


def curve(statistics: Arrays, log_lam: jax.Array, concentration: jax.Array) -> Curve:
    """The log likelihood of negative binomial counts by group, at log rates (G, n); see `Likelihood.curve`."""
    terms = _terms(statistics, jnp.ones(()), jnp.zeros(()), concentration)
    lam = jnp.exp(log_lam)
    odds = terms.ratio * (lam if terms.group is None else lam[terms.group])  # (T, n)
    share = terms.power * odds / (1.0 + odds)
    return Curve(
        height=terms.total * log_lam - _by_group(terms, terms.power * jnp.log1p(odds)),
        slope=terms.total - _by_group(terms, share),
        bend=_by_group(terms, share / (1.0 + odds)),
    )


def _by_group(terms: _Terms, by_stratum: jax.Array) -> jax.Array:
    """Sums over the strata of each group, (T, n) to (G, n)."""
    if terms.group is None:
        return by_stratum
    return jax.ops.segment_sum(by_stratum, terms.group, terms.total.shape[0], indices_are_sorted=True)


def _log_integrand(terms: _Terms, at: _At) -> jax.Array:
    """Log of exp h (1 - h' / k), (G, n)."""
    return at.height + jnp.log(at.pull / (terms.shape + terms.total))


def _log_integral(terms: _Terms) -> jax.Array:
    """Log of the integral of exp h, (G,)."""
    v, log_weight = jax.lax.stop_gradient(_nodes(terms))
    return logsumexp(_log_integrand(terms, _at(terms, v)) + log_weight, axis=1)


def _nodes(terms: _Terms) -> tuple[jax.Array, jax.Array]:
    """Nodes v = mode + x (exp(d t) - 1) / (exp d - 1), t equally spaced in -1..1, and log weights; each (G, n)."""
    mode = _mode(terms)
    return nodes_between(mode, *_ends(terms, mode), NODES)


def nodes_between(mode: jax.Array, left: jax.Array, right: jax.Array, num: int) -> tuple[jax.Array, jax.Array]:
    """So many nodes from `left` to `right` of a mode, distances (G, 1), and log weights, each (G, n)."""
    d = jnp.log(-right / left)
    d = jnp.where(jnp.abs(d) < 1e-3, 1e-3, d)  # any d near it is valid: the divisor must not vanish
    t = np.linspace(-1.0, 1.0, num, dtype=mode.dtype)
    stretch = right / jnp.expm1(d)
    return mode + stretch * jnp.expm1(d * t), jnp.log(stretch * d * (2.0 / (num - 1))) + d * t


def _mode(terms: _Terms) -> jax.Array:
    """The approximate root of h', (G, 1).

    The root of a quadratic if a group has one exposure, then Newton's steps on log(1 - h' / k), which is nearly linear
    in v, within a shrinking bracket. The bounds 0 <= odds / (1 + odds) <= odds give the first bracket.
    """
    size = terms.shape + terms.total
    power, pull = _by_group(terms, terms.power), _by_group(terms, terms.power * terms.ratio)  # (G, 1)
    ratio = pull / power
    excess = (pull - terms.total * ratio) / terms.shape  # e mu / a
    b = 1.0 + ratio + excess  # with w = 1 + z: ratio z^2 + b z + excess - S / a = 0
    rest = excess - terms.total / terms.shape
    z = -2.0 * rest / (b + jnp.sqrt(b * b - 4.0 * ratio * rest))
    low, high = _log_quotient(size, terms.shape + pull, terms.total - pull), jnp.log1p(terms.total / terms.shape)
    v = jnp.clip(jnp.log1p(jnp.maximum(z, -0.999999)), low, high)
    for _ in range(MODE_STEPS):
        at = _at(terms, v)
        low, high = jnp.where(at.slope > 0.0, v, low), jnp.where(at.slope > 0.0, high, v)
        step = v - jnp.log1p(-at.slope / size) * at.pull / at.curvature
        v = jnp.where((low <= step) & (step <= high), step, 0.5 * (low + high))
    return v


def _log_quotient(x: jax.Array, y: jax.Array, difference: jax.Array) -> jax.Array:
    """Log(x / y), with x - y known without rounding."""
    return jnp.where(jnp.abs(difference) < 0.5 * y, jnp.log1p(difference / y), jnp.log(x / y))


def _ends(terms: _Terms, mode: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Distances left (< 0) and right of the mode at which the log integrand has dropped by `DROP`, each (G, 1).

    Newton's steps; on the right they start at the solution for Poisson counts and never pass the point where the prior
    alone has dropped by `DROP`.
    """
    at = _at(terms, mode)
    cut = _log_integrand(terms, at) - DROP
    left = -jnp.minimum(jnp.sqrt(2.0 * DROP / at.curvature), 2.0 * DROP)
    right = right_root(DROP / (terms.shape + terms.total))
    limit = right_root(2.0 * DROP / (terms.shape * jnp.exp(mode)))
    for _ in range(END_STEPS):
        at = _at(terms, mode + left)
        left = left - (_log_integrand(terms, at) - cut) / (at.slope + at.curvature / at.pull)
        at = _at(terms, mode + right)
        right = jnp.minimum(limit, right - (_log_integrand(terms, at) - cut) / at.slope)
    return left, right


def right_root(u: jax.Array) -> jax.Array:
    """The root x > 0 of exp x - 1 - x = u, or slightly more."""
    return jnp.log1p(u + jnp.sqrt(2.0 * u))


def _draw_log(key: jax.Array, terms: _Terms) -> jax.Array:
    """Draws of v = log w from the density exp h, (G,), between tangents one standard deviation off the mode."""
    mode = _mode(terms)
    centre = _at(terms, mode)
    left = -1.0 / jnp.sqrt(centre.curvature)
    right = jnp.minimum(-left, right_root(0.5 / (terms.shape * jnp.exp(mode))))
    return draw_below_tangents(key, mode, left, right, functools.partial(_at, terms))


def draw_below_tangents(
    key: jax.Array, mode: jax.Array, left: jax.Array, right: jax.Array, at: Callable[[jax.Array], Any]
) -> jax.Array:
    """Draws from a density exp h with concave h, (G,), by rejection.

    Since h is concave, it lies below its tangents left and right of the mode. The envelope is a density of two
    exponentials that fall from the intersection of the tangents. One standard deviation off the mode, it accepts three
    in four draws.

    Parameters
    ----------
    left, right : (G, 1), distances of the points of the tangents from the mode
    at : points (G, 1) to `height`, h, and `slope`, h'
    """
    lower, upper = at(mode + left), at(mode + right)
    apart = lower.slope - upper.slope
    meet = (upper.height - lower.height + lower.slope * left - upper.slope * right) / apart
    top = lower.height + lower.slope * (meet - left)

    def attempt(tried: tuple) -> tuple:
        key, x, is_open = tried
        key, key_side, key_fall, key_keep = jax.random.split(key, 4)
        goes_left = jax.random.uniform(key_side, mode.shape, mode.dtype) < -upper.slope / apart
        fall = jax.random.exponential(key_fall, mode.shape, mode.dtype)
        new = meet - fall / jnp.where(goes_left, lower.slope, upper.slope)
        margin = at(mode + new).height - (top - fall)  # <= 0
        is_rejected = -jax.random.exponential(key_keep, mode.shape, mode.dtype) > margin  # never for NaN
        return key, jnp.where(is_open, new, x), is_open & is_rejected

    begin = (key, jnp.zeros_like(mode), jnp.ones(mode.shape, bool))
    _, x, _ = jax.lax.while_loop(lambda tried: jnp.any(tried[2]), attempt, begin)
    return (mode + x)[:, 0]
