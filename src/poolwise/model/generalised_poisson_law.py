"""Consul's generalised Poisson law: a mean r and a dispersion xi in (-1, 1) to the law of one count.

With theta = r (1 - xi) and w = theta + xi y,

    P(y) = theta w^(y - 1) exp(-w) / y! = (theta / w) Poisson(y | w),    w > 0

has mean r and variance r / (1 - xi)^2. For xi >= 0 it is the total progeny of Poisson(theta) founders with Poisson(xi)
children each. For xi < 0 only counts below theta / |xi| are possible. As Consul and Jain, we let at least the `LEAST`
counts 0 to 3 be: an xi below -r / (4 - r) stands for that bound, so counts of small rates vary little less than
Poisson, as whole numbers must. Without the bound a rate near 0 could show no event at all, and the density would be cut
off where a count becomes impossible; with it, it vanishes there like the third power of the distance, or a higher one.

For xi < 0 the probabilities sum to one only up to a miss of about exp(-n (|xi| - Re W)) for n possible counts, W the
branch 1 of Lambert's function at |xi| exp(|xi|): below exp(-1.5 n). The law is normalised where at most `FEW` counts
are possible; elsewhere the miss is below 1e-12. A normalised law has the mean r only approximately, but to 0.5% at any
r and xi, and to 1e-6 from r = 5 on; its variance is r / (1 - xi)^2 to 3%.

Probabilities are in Loader's form: the deviance of the Poisson by log1p, without differences of large logarithms.

References
----------
Consul and Jain (1973), A generalization of the Poisson distribution, Technometrics 15(4), doi:10.2307/1267389.
Consul and Famoye (2006), Lagrangian Probability Distributions, chapter 9.
Loader (2000), Fast and accurate computation of binomial probabilities.
"""

from types import ModuleType
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.typing import ArrayLike

from poolwise.model.special import log_factorial_excess, positive

LEAST = 4  # counts that are possible at any rate
FEW = 20  # possible counts up to which the law is normalised
ROUNDING = 1e-12  # of w over theta, at a count that is just not possible
SUMMED = 256.0  # counts below which probabilities are summed one by one
HEAD = 64.0  # and otherwise those of so many counts; an integral stands for the sum over the others
NODES = 64  # of Gauss and Legendre
BEYOND = 40.0  # minus the logarithm of a tail probability that is not told from 0
# of central differences of odd order: the sum of f(k) over k < n is the integral up to n - 1/2 and these corrections
CORRECTIONS = (-1 / 24, 17 / 5760, -367 / 967680)
DIFFERENCES = ((1, -1), (1, -3, 3, -1), (1, -5, 10, -10, 5, -1))  # from the largest argument down


def within_bound(rate: Any, xi: Any, numerics: ModuleType = jnp) -> Any:
    """The dispersion, at least that of `LEAST` possible counts; above a rate of 2 any in (-1, 1) is."""
    return numerics.maximum(xi, -rate / (LEAST - numerics.minimum(rate, LEAST / 2)))


def log_terms(count: Any, rate: Any, xi: Any, numerics: ModuleType = jnp) -> Any:
    """Log P(y), not normalised; -inf for a count that is not possible, with gradients 0."""
    theta = positive(numerics.asarray(rate * (1.0 - xi)))
    w = theta + xi * count
    is_possible = w > ROUNDING * theta
    w = numerics.where(is_possible, w, 1.0)
    above = numerics.where(is_possible, (1.0 - xi) * (count - rate), 0.0)  # count - w
    is_near, log_w = numerics.abs(above) < 0.5 * w, numerics.log(w)
    near = numerics.log1p(numerics.where(is_near, above, 0.0) / numerics.where(is_near, w, 1.0))
    log_ratio = numerics.where(is_near, near, numerics.log(numerics.where(count > 0, count, 1.0)) - log_w)  # count / w
    found = numerics.log(theta) - log_w - (count * log_ratio - above)
    return numerics.where(is_possible, found - log_factorial_excess(count, numerics), -np.inf)


def few_possible(rate: Any, xi: Any) -> Any:
    """Whether at most `FEW` counts are possible."""
    return rate * (1.0 - xi) + xi * FEW <= 0


def few_terms(rate: Any, xi: Any, numerics: ModuleType = jnp) -> Any:
    """P of the first `FEW` counts, not normalised, along a new last axis; only where few are possible."""
    is_few = few_possible(rate, xi)
    theta, xi = numerics.where(is_few, rate * (1.0 - xi), 0.5), numerics.where(is_few, xi, -1.0)
    factor = numerics.exp(-theta)  # exp(-w) / k!, by recursion: without logarithms, so much faster than `log_terms`
    terms, step = [factor], numerics.exp(-xi)
    for k in range(1, FEW):
        factor, w = factor * step / k, theta + xi * k
        terms.append(numerics.where(w > ROUNDING * theta, theta * factor * w ** (k - 1), 0.0))
    return numerics.stack(terms, axis=-1)


def total(rate: Any, xi: Any, numerics: ModuleType = jnp) -> Any:
    """The sum of all P; 1 where it misses that by less than 1e-12."""
    return numerics.where(few_possible(rate, xi), few_terms(rate, xi, numerics).sum(axis=-1), 1.0)


class GeneralisedPoissonLaw(dist.Distribution):  # type: ignore[misc]
    """The law of one count."""

    arg_constraints: ClassVar = {"rate": dist.constraints.positive, "xi": dist.constraints.interval(-1.0, 1.0)}
    support = dist.constraints.nonnegative_integer

    def __init__(self, rate: ArrayLike, xi: ArrayLike) -> None:
        self.rate, self.xi = jnp.broadcast_arrays(rate, xi)
        super().__init__(batch_shape=jnp.shape(self.rate))

    @property
    def _law(self) -> tuple[jax.Array, jax.Array]:
        return self.rate, within_bound(self.rate, self.xi)

    def log_prob(self, value: ArrayLike) -> jax.Array:
        """-inf for a count that is not possible."""
        found, is_few = log_terms(jnp.asarray(value), *self._law), few_possible(*self._law)
        log_total = jax.lax.cond(  # most rates allow many counts, and the sum costs as much as all the rest
            jnp.any(is_few),
            lambda *law: jnp.log(total(*law)),
            lambda *_: jnp.zeros_like(is_few, found.dtype),
            *self._law,
        )
        return found - log_total

    @property
    def mean(self) -> jax.Array:
        """The rate; for few possible counts their own mean."""
        return jnp.where(few_possible(*self._law), self._few_moment(1), self.rate)

    @property
    def variance(self) -> jax.Array:
        """Rate / (1 - xi)^2; for few possible counts their own."""
        few = self._few_moment(2) - self._few_moment(1) ** 2
        return jnp.where(few_possible(*self._law), few, self.rate / (1.0 - self.xi) ** 2)

    def _few_moment(self, power: int) -> jax.Array:
        terms = few_terms(*self._law)
        return (terms * jnp.arange(FEW) ** power).sum(axis=-1) / terms.sum(axis=-1)

    def sample(self, key: jax.Array, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        """By inversion, one count after the other from 0: for moderate rates; `drawn` is for any."""
        place = jax.random.uniform(key, self.shape(sample_shape))

        def is_open(state: tuple) -> jax.Array:
            k, below, last, _ = state
            return (below <= place) & ((k <= self.rate) | (last > 1e-17))  # rounding may keep `below` from 1

        def step(state: tuple) -> tuple:
            k, below, _, found = state
            last = jnp.broadcast_to(jnp.exp(self.log_prob(k)), place.shape)
            return k + 1.0, below + last, last, found + (is_open(state) & (below + last <= place))

        nothing = jnp.zeros_like(place)
        start = jnp.zeros(()), nothing, nothing, nothing
        return jax.lax.while_loop(lambda state: jnp.any(is_open(state)), step, start)[-1]


def below(count: np.ndarray, rate: np.ndarray, xi: np.ndarray) -> np.ndarray:
    """P(Y < count): the sum of all terms below, or for large counts the sum of the first and an integral."""
    count, rate, xi = np.broadcast_arrays(np.asarray(count, float), rate, within_bound(rate, xi, np))
    flat = count.ravel(), rate.ravel(), xi.ravel()
    is_small, found = flat[0] <= SUMMED, np.zeros(count.size)
    for some, of_these in ((is_small, _head), (~is_small, _of_large)):
        if some.any():
            found[some] = of_these(*(each[some] for each in flat))
    return np.minimum(found / total(*flat[1:], np), 1.0).reshape(count.shape)


def _head(count: np.ndarray, rate: np.ndarray, xi: np.ndarray) -> np.ndarray:
    """The sum of all terms below a small count."""
    found = np.zeros(count.size)
    for k in range(int(count.max(initial=0.0))):
        found += np.where(count > k, np.exp(log_terms(float(k), rate, xi, np)), 0.0)
    return found


def _of_large(count: np.ndarray, rate: np.ndarray, xi: np.ndarray) -> np.ndarray:
    """The sum of all terms below a large count; 0 or 1 where a tail is negligible."""
    first, last = _bulk(rate, xi)
    found, some = np.where(count > last, 1.0, 0.0), (count > first) & (count <= last)
    count, rate, xi, first = (each[some] for each in (count, rate, xi, first))
    low, high = np.maximum(first, HEAD - 0.5), count - 0.5
    node, weight = np.polynomial.legendre.leggauss(NODES)
    width = np.log(high / low)  # the law is smooth in log y, with light tails
    y = high[:, None] * np.exp(-width[:, None] * (1.0 - node) / 2.0)
    integral = (np.exp(log_terms(y, rate[:, None], xi[:, None], np)) * y) @ weight * width / 2.0
    ends = _correction(count, rate, xi) - _correction(np.full_like(count, HEAD), rate, xi)
    found[some] = _head(np.full_like(count, HEAD), rate, xi) + integral + ends
    return found


def _correction(count: np.ndarray, rate: np.ndarray, xi: np.ndarray) -> np.ndarray:
    """What the sum over all smaller counts has beyond the integral, by Euler and Maclaurin."""
    found = np.zeros_like(count)
    for factor, signs in zip(CORRECTIONS, DIFFERENCES, strict=True):
        for j, sign in enumerate(signs):
            at = count + (len(signs) / 2 - 1 - j)
            found += factor * sign * np.exp(log_terms(at, rate, xi, np))
    return found


def _bulk(rate: np.ndarray, xi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts between which all but exp(-`BEYOND`) of each tail lies, by Chernoff's bound.

    With q = y / w, the tail from y = q theta / (1 - xi q) on is at most exp(-theta (q log q - q + 1) / (1 - xi q)).
    """
    theta = positive(rate * (1.0 - xi))
    largest = np.where(xi > 0, -np.log(np.maximum(xi, 1e-9)), 20.0)  # of log q
    ends = []
    for far in (np.full_like(theta, -50.0), np.minimum(largest, 20.0)):
        near = np.zeros_like(theta)  # the mean
        for _ in range(60):
            middle = (near + far) / 2.0
            q = np.exp(middle)
            is_bulk = theta * (q * middle - q + 1.0) < BEYOND * (1.0 - xi * q)
            near, far = np.where(is_bulk, middle, near), np.where(is_bulk, far, middle)
        ends.append(np.exp(near) * theta / np.maximum(1.0 - xi * np.exp(near), 1e-16))
    return ends[0], ends[1]


def drawn(rate: np.ndarray, xi: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One count for each rate."""
    rate, xi = np.broadcast_arrays(np.asarray(rate, float), within_bound(rate, xi, np))
    flat_rate, flat_xi = rate.ravel(), xi.ravel()
    is_wide, found = flat_xi >= 0, np.zeros(rate.size, np.int64)
    for some, of_these in ((is_wide, _progeny), (~is_wide, _rejected)):
        found[some] = of_these(flat_rate[some], flat_xi[some], rng)
    return found.reshape(rate.shape)


def _progeny(rate: np.ndarray, xi: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Founders and their descendants, generation by generation until all are extinct."""
    found = rng.poisson(rate * (1.0 - xi))
    alive, last = np.flatnonzero(found), found
    last = last[alive]
    while alive.size:
        last = rng.poisson(xi[alive] * last)
        found[alive] += last
        alive, last = alive[last > 0], last[last > 0]
    return found


def _rejected(rate: np.ndarray, xi: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """By rejection: for xi < 0 the law is log-concave, so P(k) <= P(mode) min(1, exp(1 - P(mode) |k - mode|)).

    The second difference of log P is negative wherever two counts are possible. A place on the real line is rounded to
    k, so it is at most 1/2 farther from the mode.

    References
    ----------
    Devroye (1987), A simple generator for discrete log-concave distributions, Computing 39, doi:10.1007/BF02307716.
    """
    mode = _mode(rate, xi)
    log_height = log_terms(mode, rate, xi, np)
    height = np.exp(log_height) / total(rate, xi, np)
    found, waiting = np.zeros(rate.size), np.arange(rate.size)
    while waiting.size:
        m, p, size = mode[waiting], height[waiting], waiting.size
        flat = 1.0 + p / 2.0  # times 1 / p: where the bound is 1; the area of its tail is 1 / p
        is_flat = rng.random(size) < flat / (1.0 + flat)
        scaled = np.where(is_flat, flat * rng.random(size), flat + rng.standard_exponential(size))
        k = m + np.rint(scaled / p) * rng.choice([-1.0, 1.0], size)
        relative = log_terms(np.maximum(k, 0.0), rate[waiting], xi[waiting], np) - log_height[waiting]
        bound = np.minimum(0.0, flat - scaled)
        is_taken = (k >= 0) & (bound - rng.standard_exponential(size) <= relative)
        found[waiting[is_taken]] = k[is_taken]
        waiting = waiting[~is_taken]
    return found.astype(np.int64)


def _mode(rate: np.ndarray, xi: np.ndarray) -> np.ndarray:
    """The most probable count, from the mean step by step: it is at most a few counts away."""
    mode = np.floor(rate)
    while True:
        here, upper, lower = (log_terms(np.maximum(mode + step, 0.0), rate, xi, np) for step in (0.0, 1.0, -1.0))
        step = np.where(upper > here, 1.0, np.where(lower > here, -1.0, 0.0))
        if not step.any():
            return mode
        mode = mode + step
