"""Counts with log-normal rates: the rates integrated out, and the rates given everything else.

The log rate of a group is x = m + s z with z ~ Normal(0, 1). With L(x), the log likelihood of its rows, the integral
over the rate is

    (2 pi)^(-1/2) int exp h(z) dz,    h(z) = L(m + s z) - z^2 / 2,

for any likelihood with a concave L (`Likelihood.curve`). Then h is concave too, and its curvature is at least 1: the
integrand falls off at least like a normal density. The integral is a short sum over nodes between the two points where
the integrand becomes negligible, as in `marginal`. In z nothing cancels or vanishes as s tends to 0.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

from poolwise.model.likelihoods.base import Curve, Likelihood, Params, over_groups
from poolwise.model.marginal import draw_below_tangents, nodes_between, right_root
from poolwise.model.priors import Arrays

NODES = 48  # error at most 1e-8 up to sigma = 1000 mu
DROP = 26.0  # of the log integrand, from the mode to the cut: exp(-26) = 5e-12
MODE_STEPS, END_STEPS = 8, 4  # of Newton; they only place the nodes
SMALLEST = 1e-30  # s to divide by


def log_marginal(
    likelihood: Likelihood, statistics: Arrays, loc: jax.Array, scale: jax.Array, params: Params
) -> jax.Array:
    """Log probability of all rows with the rates integrated out, ().

    Parameters
    ----------
    loc, scale : (), m and s, the mean and the standard deviation of log rates
    """
    at = functools.partial(_at, likelihood, statistics, loc, scale, params)
    z, log_weight = jax.lax.stop_gradient(_nodes(at, statistics, loc, scale))
    by_group = logsumexp(at(z).height + log_weight, axis=1) - 0.5 * np.log(2.0 * np.pi)
    return over_groups(by_group, statistics) + likelihood.without_rates(statistics, params)


def draw_rates(
    key: jax.Array, likelihood: Likelihood, statistics: Arrays, loc: jax.Array, scale: jax.Array, params: Params
) -> jax.Array:
    """The rates given the counts and everything else: independent draws (G,), exact."""
    at = functools.partial(_at, likelihood, statistics, loc, scale, params)
    mode = _mode(at, statistics, loc, scale)
    bend = at(mode).bend
    off = 1.0 / jnp.sqrt(bend)
    z = draw_below_tangents(key, mode, -off, jnp.minimum(off, _steepest(0.5, bend, scale)), at)
    return jnp.exp(loc + scale * z)


def _at(
    likelihood: Likelihood, statistics: Arrays, loc: jax.Array, scale: jax.Array, params: Params, z: jax.Array
) -> Curve:
    """h, h' and -h'' at z (G, n)."""
    found = likelihood.curve(statistics, loc + scale * z, params)
    return Curve(found.height - 0.5 * z * z, scale * found.slope - z, 1.0 + scale**2 * found.bend)


def _nodes(at: functools.partial, statistics: Arrays, loc: jax.Array, scale: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Nodes z and log weights, each (G, n)."""
    mode = _mode(at, statistics, loc, scale)
    return nodes_between(mode, *_ends(at, mode, scale), NODES)


def _mode(at: functools.partial, statistics: Arrays, loc: jax.Array, scale: jax.Array) -> jax.Array:
    """The approximate root of h', (G, 1).

    As h' falls by at least 1 a unit of z, the root is between 0 and h'(0). Newton's steps start at the root for Poisson
    counts, s S - omega(log(s^2 e) + m + s^2 S) / s, with omega(u) + log omega(u) = u. They are of log(s L') - log z,
    which is nearly linear in z, where both have one sign.
    """
    total, exposure = (statistics[f"group_{name}"][:, None] for name in ("total", "exposure"))
    divisor = jnp.maximum(scale, SMALLEST)
    end = at(jnp.zeros_like(total)).slope
    low, high = jnp.minimum(end, 0.0), jnp.maximum(end, 0.0)
    omega = _wright_omega(2.0 * jnp.log(divisor) + jnp.log(exposure) + loc + scale**2 * total)
    z = jnp.clip(scale * total - omega / divisor, low, high)
    for _ in range(MODE_STEPS):
        now = at(z)
        low, high = jnp.where(now.slope > 0.0, z, low), jnp.where(now.slope > 0.0, high, z)
        pull = now.slope + z  # s L'
        is_between = pull * z > 0.0
        by_logs = jnp.log(jnp.where(is_between, pull / z, 1.0)) * pull * z / (pull + (now.bend - 1.0) * z)
        step = z + jnp.where(is_between, by_logs, now.slope / now.bend)
        z = jnp.where((low <= step) & (step <= high), step, 0.5 * (low + high))
    return z


def _wright_omega(u: jax.Array) -> jax.Array:
    """The root y > 0 of y + log y = u; about exp(-80) if it is smaller."""
    u = jnp.maximum(u, -80.0)
    y = jax.nn.softplus(u)
    for _ in range(4):
        y = y * (1.0 + u - jnp.log(y)) / (1.0 + y)
    return y


def _ends(at: functools.partial, mode: jax.Array, scale: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Distances left (< 0) and right of the mode at which h has dropped by `DROP`, each (G, 1).

    Newton's steps; none is further off than a normal density allows.
    """
    top = at(mode)
    nearest, farthest = 1e-3 / jnp.sqrt(top.bend), np.sqrt(2.0 * DROP)
    left = -jnp.sqrt(2.0 * DROP / top.bend)
    right = jnp.minimum(farthest, _steepest(DROP, top.bend, scale))
    for _ in range(END_STEPS):
        now = at(mode + left)
        left = -jnp.clip((now.height - top.height + DROP) / now.slope - left, nearest, farthest)
        now = at(mode + right)
        right = jnp.clip(right - (now.height - top.height + DROP) / now.slope, nearest, farthest)
    return left, right


def _steepest(drop: float, bend: jax.Array, scale: jax.Array) -> jax.Array:
    """The distance right of the mode at which L of Poisson counts, which grows steepest, has dropped so far."""
    per_square = jnp.maximum(bend - 1.0, SMALLEST) / jnp.maximum(scale, SMALLEST) ** 2  # -L'' at the mode
    return right_root(drop / per_square) / jnp.maximum(scale, SMALLEST)
