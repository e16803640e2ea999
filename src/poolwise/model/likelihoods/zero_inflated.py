"""Zero-inflated counts: a share of the rows shows no event whatever its rate; the others follow a base likelihood.

P(0) = zi + (1 - zi) P_base(0)      P(y) = (1 - zi) P_base(y) for y > 0
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.typing import ArrayLike

from poolwise.model.likelihoods.base import Params
from poolwise.model.likelihoods.zeros_apart import ZerosApart
from poolwise.model.priors import Arrays
from poolwise.model.sites import Site, Support
from poolwise.model.special import above_zero


class ZeroInflated(ZerosApart):
    """y = 0 with probability zi, else y follows the base: E y = (1 - zi) r, E y^2 = (1 - zi) E_base y^2."""

    name, short = "zero_inflated", "zi"
    zeros_site = "zi"
    sites: tuple[Site, ...] = (
        Site("zi", "ζ", "share of structural zeros: rows without an event whatever their rate", Support.UNIT),
    )
    meaning = "A count is a structural zero with probability zi, one for all groups; any other count may be zero too."
    rates_are = "Rates are those of the rows that are not structural zeros."
    formula: tuple[tuple[str, str], ...] = (
        ("y<sub>i</sub> ~ ζ · 0 + (1 − ζ) · {law}", "the count of row i: 0 with probability ζ"),
    )

    def distribution(self, rate: ArrayLike, params: Params) -> dist.Distribution:
        """NumPyro's zero inflation of the base."""
        return dist.ZeroInflatedProbs(self.base.distribution(rate, params), params["zi"])

    def log_prob(self, count: ArrayLike, rate: ArrayLike, params: Params) -> jax.Array:
        """Log probability of single counts.

        Only the branch of a count has its values: the other is at a count and a rate of 1, with a finite gradient.
        """
        is_zero, log_kept, rate = jnp.asarray(count) == 0, jnp.log1p(-params["zi"]), above_zero(rate)
        at_zero = jnp.logaddexp(jnp.log(params["zi"]), log_kept + self.base.log_zero(rate, params))
        other = self.base.log_prob(jnp.where(is_zero, 1.0, count), jnp.where(is_zero, 1.0, rate), params)
        return jnp.where(is_zero, at_zero, log_kept + other)

    def information(self, statistics: Arrays, lam: jax.Array, params: Params) -> jax.Array:
        """About that of the base in the rows that are not structural zeros."""
        return (1.0 - params["zi"]) * self.base.information_by_cell(statistics, lam, params)

    def below(self, count: np.ndarray, rate: np.ndarray, params: Params) -> np.ndarray:
        """The share of structural zeros, and the base's share below."""
        return (count > 0) * params["zi"] + (1.0 - params["zi"]) * self.base.below(count, rate, params)

    def sample(self, rate: np.ndarray, params: Params, rng: np.random.Generator) -> np.ndarray:
        """Counts of the base, some of them struck out."""
        is_kept = rng.random(np.shape(rate)) >= params["zi"]
        return is_kept * self.base.sample(rate, params, rng)

    def moments(self, rate: np.ndarray, square: np.ndarray, params: Params) -> tuple[np.ndarray, np.ndarray] | None:
        """The base's, times the share of rows that are not structural zeros."""
        found = self.base.moments(rate, square, params)
        return found and ((1.0 - params["zi"]) * found[0], (1.0 - params["zi"]) * found[1])

    def moments_at(self, rate: np.ndarray, params: Params) -> tuple[np.ndarray, np.ndarray]:
        """The base's, times the share of rows that are not structural zeros."""
        mean, square = self.base.moments_at(rate, params)
        return (1.0 - params["zi"]) * mean, (1.0 - params["zi"]) * square
