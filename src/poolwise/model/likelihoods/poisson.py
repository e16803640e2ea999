"""Poisson counts: the variance is the mean."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.scipy.special import gammaln, xlogy
from jax.typing import ArrayLike
from scipy import special

from poolwise.counts.statistics import SUFFICIENT
from poolwise.model.likelihoods.base import Curve, ExactCells, Likelihood, Params, over_groups, remaining
from poolwise.model.priors import Arrays
from poolwise.model.special import log_rising


class Poisson(Likelihood):
    """y ~ Poisson(r)."""

    name, short = "poisson", "pois"
    meaning = "Given its rate, a count varies like a Poisson count: variance equal to the mean."
    formula = (("y<sub>i</sub> ~ Poisson(r<sub>i</sub>)", "the count of row i"),)
    statistics = SUFFICIENT
    exact_cells = ExactCells(100_000, 5_000, 1_000)

    def distribution(self, rate: ArrayLike, params: Params) -> dist.Distribution:
        """Poisson(r)."""
        return dist.Poisson(rate)

    def log_prob(self, count: ArrayLike, rate: ArrayLike, params: Params) -> jax.Array:
        """Log probability of single counts."""
        return xlogy(count, rate) - rate - gammaln(count + 1.0)

    def log_zero(self, rate: ArrayLike, params: Params) -> jax.Array:
        """The negative rate."""
        return -jnp.asarray(rate)

    def log_likelihood(self, statistics: Arrays, lam: jax.Array, params: Params) -> jax.Array:
        """By group: its total and its exposure are sufficient."""
        by_group = xlogy(statistics["group_total"], lam) - statistics["group_exposure"] * lam
        return jnp.sum(by_group) + statistics["constant"]

    def log_marginal(self, statistics: Arrays, mu: jax.Array, shape: jax.Array, params: Params) -> jax.Array:
        """By group: the total S is negative binomial with mean e mu and concentration a."""
        total = statistics["group_total"]
        spread = (shape + total) * jnp.log1p(statistics["group_exposure"] * mu / shape)
        by_group = total * jnp.log(mu) - spread + log_rising(shape, total)
        return over_groups(by_group, statistics) + statistics["constant"]

    def draw_rates(
        self, key: jax.Array, statistics: Arrays, mu: jax.Array, shape: jax.Array, params: Params
    ) -> jax.Array:
        """Gamma(a + S, a / mu + e)."""
        size, rate = self.rates_given(statistics, mu, shape)
        return jax.random.gamma(key, size) / rate

    def rates_given(self, statistics: Mapping[str, Any], mu: ArrayLike, shape: ArrayLike) -> tuple[Any, Any]:
        """Gamma(a + S, a / mu + e)."""
        return shape + statistics["group_total"], shape / mu + statistics["group_exposure"]

    def curve(self, statistics: Arrays, log_lam: jax.Array, params: Params) -> Curve:
        """By group: S log lam - e lam."""
        total, mean = statistics["group_total"][:, None], statistics["group_exposure"][:, None] * jnp.exp(log_lam)
        return Curve(total * log_lam - mean, total - mean, mean)

    def without_rates(self, statistics: Arrays, params: Params) -> jax.Array:
        """The constant of the table."""
        return statistics["constant"]

    def below(self, count: np.ndarray, rate: np.ndarray, params: Params) -> np.ndarray:
        """By the incomplete gamma function; 0 for a count of 0."""
        return special.gammaincc(count, rate) * (count > 0)

    def at_least(self, count: np.ndarray, rate: np.ndarray, params: Params) -> np.ndarray:
        """By the incomplete gamma function; 1 for a count of 0."""
        return np.where(count > 0, special.gammainc(np.maximum(count, 1.0), rate), 1.0)

    def sample_positive(self, rate: np.ndarray, params: Params, rng: np.random.Generator) -> np.ndarray:
        """The first event, and those after it."""
        return 1 + self.sample(remaining(rate, rng), params, rng)

    def sample(self, rate: np.ndarray, params: Params, rng: np.random.Generator) -> np.ndarray:
        """One count for each rate."""
        return rng.poisson(np.minimum(rate, 2.0**62))  # NumPy's own limit is a little above

    def moments(self, rate: np.ndarray, square: np.ndarray, params: Params) -> tuple[np.ndarray, np.ndarray]:
        """E y = E r, E y^2 = E r^2 + E r."""
        return rate, square + rate


POISSON = Poisson()
