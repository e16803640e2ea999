"""Special functions of the models, in forms without the cancellation of the textbook ones.

Shapes and concentrations are inverse squares of standard deviations, which may be tiny: arguments reach 1e30.
"""

from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

LARGEST = 1e30  # of a shape or a concentration: larger values change nothing


def concentration_of(delta: jax.Array) -> jax.Array:
    """Phi = 1 / delta^2, at most `LARGEST`: from about 1e16 the likelihood equals the Poisson's to the last bit."""
    return 1.0 / jnp.maximum(delta**2, 1 / LARGEST)


def log_normal_scale(ratio: jax.Array) -> jax.Array:
    """Standard deviation of the logarithm of a log-normal quantity, sqrt(log1p(ratio^2)), accurate from 0 to infinity.

    Parameters
    ----------
    ratio : of its standard deviation to its mean
    """
    square = jnp.logaddexp(0.0, 2.0 * jnp.log(jnp.maximum(ratio, 1e-8)))
    return jnp.where(ratio < 1e-8, ratio, jnp.sqrt(square))


def positive[Rates: (jax.Array, np.ndarray)](rate: Rates) -> Rates:
    """Rates, at least the smallest normal float: that of a group without counts can underflow, but is positive."""
    return rate.clip(min=np.finfo(rate.dtype).tiny)


def above_zero(rate: ArrayLike) -> jax.Array:
    """Rates, at least the number whose cube is the smallest normal float: ratios of rates and their slopes exist."""
    rate = jnp.asarray(rate, jnp.result_type(float))
    return jnp.maximum(rate, float(np.cbrt(np.finfo(rate.dtype).tiny)))


def log_rising(a: jax.Array, n: jax.Array) -> jax.Array:
    """Log Gamma(a + n) - log Gamma(a) - n log a = sum_{j<n} log1p(j / a), for a > 0 and n >= 0; arguments broadcast.

    A difference of log-gammas loses every digit for large a (phi reaches 1e30) and is slow. Instead eight factors are
    split off, Gamma(a) = Gamma(a + 8) / (a (a + 1) ... (a + 7)), and Stirling's series is used from a + 8, where its
    first omitted term is below 3e-13.

    References
    ----------
    NIST Digital Library of Mathematical Functions, 5.5.1 and 5.11.1.
    """
    x = a + 8.0
    factors = 1.0 + n / (a + 1.0)
    for j in range(2, 8):
        factors = factors * (1.0 + n / (a + j))
    taken_off = jnp.log1p(n / a) + jnp.log(factors)  # the factor of j = 0 separately: it may be huge
    series = (x + n - 0.5) * jnp.log1p(n / x) - n + _stirling(x + n) - _stirling(x)
    return series + n * jnp.log1p(8.0 / a) - taken_off


def log_gamma_scale(a: jax.Array) -> jax.Array:
    """Log of a^a exp(-a) / Gamma(a), the density of log w at 0 for w ~ Gamma(a, rate a); about log(a / (2 pi)) / 2.

    By Stirling's series from a + 8, as in `log_rising`.
    """
    x = a + 8.0
    factors = (a + 1.0) / x
    for j in range(2, 8):
        factors = factors * ((a + j) / x)
    series = 8.0 - a * jnp.log1p(8.0 / a) - _stirling(x)
    return jnp.log(a) - 0.5 * jnp.log(2.0 * np.pi * x) + jnp.log(factors) + series


def log_factorial_excess(n: Any, numerics: ModuleType = jnp) -> Any:
    """Log n! - (n log n - n), about log(2 pi n) / 2, in full precision; NumPy as `numerics` gives NumPy arrays.

    By Stirling's series from n + 9, as in `log_rising`; exactly 0 for n = 0.
    """
    x = n + 9.0
    factors = (n + 1.0) / x
    for j in range(2, 9):
        factors = factors * ((n + j) / x)
    some = numerics.where(n > 0, n, 1.0)
    series = n * numerics.log1p(9.0 / some) - 9.0 + _stirling(x)
    found = series + 0.5 * numerics.log(2.0 * np.pi * x) - numerics.log(factors)
    return numerics.where(n > 0, found, 0.0)


@jax.custom_jvp
def exp_remainder(x: jax.Array) -> jax.Array:
    """Exp(x) - 1 - x, accurate also near 0."""
    series = jnp.ones_like(x)  # 1 + x/3 (1 + x/4 (1 + ...))
    for j in range(14, 2, -1):
        series = 1.0 + series * x / j
    return jnp.where(jnp.abs(x) < 0.5, 0.5 * x * x * series, jnp.expm1(x) - x)


exp_remainder.defjvps(lambda tangent, _, x: tangent * jnp.expm1(x))


def _stirling(x: jax.Array) -> jax.Array:
    """Log Gamma(x) - [(x - 1/2) log x - x + log(2 pi) / 2], for x >= 8."""
    inverse = 1.0 / x
    square = inverse * inverse
    return inverse * (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square * (1 / 1680 - square / 1188))))


def mean_one_gamma(shape: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gamma draws with mean 1 and variance 1 / shape; 1 where the shape is infinite, 0 where it is 0."""
    finite = np.clip(shape, np.finfo(float).tiny, 1e30)
    return rng.standard_gamma(finite) / finite
