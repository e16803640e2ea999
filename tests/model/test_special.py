"""The special functions: against sums, SciPy and many digits, where textbook forms cancel."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from poolwise.model.special import exp_remainder, log_gamma_scale, log_rising


@pytest.mark.parametrize("n", [0, 1, 7, 150, 20_000])
@pytest.mark.parametrize("a", [1e-20, 1e-3, 0.5, 7.9, 16.0, 1e4, 1e12, 1e30])
def test_log_rising_is_the_sum_it_stands_for(a, n):
    expected = np.log1p(np.arange(n) / a).sum()
    assert float(log_rising(jnp.float64(a), jnp.float64(n))) == pytest.approx(expected, rel=1e-11, abs=1e-10)


@pytest.mark.parametrize("n", [1, 20, 3000])
@pytest.mark.parametrize("a", [1e-3, 0.5, 16.0, 1e4, 1e12])
def test_log_rising_has_the_slope_of_the_sum_it_stands_for(a, n):
    j = np.arange(n)
    expected = -(j / a / (1 + j / a)).sum()  # d/d log a
    found = jax.grad(lambda log_a: log_rising(jnp.exp(log_a), jnp.float64(n)))(np.log(a))
    assert float(found) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("a", [1e-300, 1e-20, 0.01, 1.0, 7.9, 300.0])
def test_log_gamma_scale_is_a_density_of_the_gamma(a):
    # w = exp v ~ Gamma(a, rate a): the density of v at 0 is that of w at 1
    expected = stats.gamma(a, scale=1 / a).logpdf(1.0) if a > 1e-200 else np.log(a)
    assert float(log_gamma_scale(jnp.float64(a))) == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("a", [1e4, 1e8, 1e16, 1e30])
def test_log_gamma_scale_keeps_its_digits_for_large_shapes(a):
    # Stirling: log sqrt(a / (2 pi)) - 1 / (12 a) + O(a^-3)
    assert float(log_gamma_scale(jnp.float64(a))) == pytest.approx(
        0.5 * np.log(a / (2 * np.pi)) - 1 / (12 * a), rel=1e-14
    )


@pytest.mark.parametrize("a", [1e-20, 0.01, 1.0, 300.0, 1e8, 1e16, 1e30])
def test_log_gamma_scale_has_the_slope_of_the_density(a):
    # a d/da = a (log a - digamma a), which is 1 for small a and 1/2 + 1 / (12 a) for large
    found = jax.grad(lambda log_a: log_gamma_scale(jnp.exp(log_a)))(jnp.log(a))
    expected = a * (np.log(a) - special.digamma(a)) if a < 1e4 else 0.5 + 1 / (12 * a)
    assert float(found) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("x", [0.0, 1e-15, -1e-8, 0.1, 0.4999, -0.4999, 0.5001, -0.5001, 3.0, -30.0])
def test_exp_remainder_keeps_its_digits(x):
    terms = [x**j / math.factorial(j) for j in range(2, 30)] if abs(x) < 1 else [math.exp(x) - 1 - x]
    assert float(exp_remainder(jnp.float64(x))) == pytest.approx(math.fsum(terms), rel=1e-14)
    assert float(jax.grad(exp_remainder)(x)) == math.expm1(x)
