"""Partial pooling: the rates come from one log-normal distribution with estimated mean and standard deviation."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from poolwise.model.mixings.base import Law
from poolwise.model.mixings.log_normal import LOG_NORMAL
from poolwise.model.poolings.base import Draws, Families, NewGroupWords, RateLaw
from poolwise.model.poolings.hierarchy import Hierarchy, sample_z
from poolwise.model.priors import PriorValues
from poolwise.model.special import log_normal_scale


class HierarchicalLogNormal(Hierarchy):
    """mu, sigma ~ priors; log lam[g] ~ Normal(m, s) with s^2 = log1p(sigma^2 / mu^2) and m = log mu - s^2 / 2."""

    population, qualifier, mixing = "log_normal", "log-normal", LOG_NORMAL
    meaning = (
        f"{Hierarchy.meaning} The logarithms of the rates are normal: with the same mean and spread as a gamma"
        " population, very high rates are more likely, and rates near zero much less."
    )
    formula = (
        ("log λ<sub>g</sub> ~ Normal(m, s)", "lam: the rate of group g, with mean μ and standard deviation σ"),
        (
            "s<sup>2</sup> = log(1 + σ<sup>2</sup> / μ<sup>2</sup>), m = log μ − s<sup>2</sup> / 2",
            "m and s: mean and standard deviation of the logarithm of a rate",
        ),
    )
    new_group_words = NewGroupWords(
        title=Hierarchy.new_group_words.title,
        how_to_read=f"{Hierarchy.new_group_words.how_to_read} The shape of the population, here log-normal, decides "
        "how likely a very high rate is, and few groups hardly show it: compare with pooling.population=gamma.",
    )
    is_bounded_by_events = False

    def derived(self, mu: jax.Array, sigma: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean m and standard deviation s of log rates."""
        law = self.law_at(mu, sigma)
        return numpyro.deterministic("m", law["loc"]), numpyro.deterministic("s", law["scale"])

    def distribution(self, first: jax.Array, second: jax.Array) -> dist.Distribution:
        """LogNormal(m, s)."""
        return dist.LogNormal(first, second)

    def law_at(self, mu: jax.Array, sigma: jax.Array) -> Law:
        """The log-normal law with these moments."""
        scale = log_normal_scale(sigma / mu)
        return {"loc": jnp.log(mu) - 0.5 * scale**2, "scale": scale}

    def information_on_mean(self, sigma: jax.Array, rate: jax.Array, weight: jax.Array) -> jax.Array:
        """A group shows log lam with variance s^2 + 1 / weight about m; both m and s depend on mu."""
        square = (sigma / rate) ** 2
        share = 1.0 / (1.0 + 1.0 / square)  # of the derivatives of m and s^2 in log mu: 1 + share and -2 share
        precision = weight / (1.0 + log_normal_scale(sigma / rate) ** 2 * weight)
        return jnp.sum((1.0 + share) ** 2 * precision + 2.0 * (share * precision) ** 2)

    def standardised_rates(
        self, mu: jax.Array, sigma: jax.Array, rate: jax.Array, weight: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """In log lam, the prior has weight 1 / s^2."""
        law = self.law_at(mu, sigma)
        loc, scale = law["loc"], law["scale"]
        spread = jnp.sqrt(1.0 + scale**2 * weight)
        z = sample_z(rate.shape[0])
        x = scale * weight / spread**2 * (jnp.log(rate) - loc) + z / spread  # (log lam - m) / s ~ Normal(0, 1)
        log_density = -0.5 * x * x - 0.5 * np.log(2.0 * np.pi) - jnp.log(spread)
        return jnp.exp(loc + scale * x), log_density

    def rate_law(self, families: Families, values: PriorValues) -> RateLaw:
        """Log-normal with the parameters m and s."""
        return RateLaw("LogNormal", {}, {"loc": "m", "scale": "s"})

    def new_rates(self, draws: Draws, families: Families, values: PriorValues, rng: np.random.Generator) -> np.ndarray:
        """One draw from the log-normal of each posterior draw."""
        return np.exp(draws["m"] + draws["s"] * rng.standard_normal(np.shape(draws["m"])))


HIERARCHICAL_LOG_NORMAL = HierarchicalLogNormal()
