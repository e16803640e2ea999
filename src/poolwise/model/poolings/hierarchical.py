"""Partial pooling: the rates come from one gamma distribution with estimated mean and standard deviation."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from poolwise.model.mixings.base import Law
from poolwise.model.poolings.base import Draws, Families, RateLaw
from poolwise.model.poolings.hierarchy import Hierarchy, sample_z
from poolwise.model.priors import PriorValues
from poolwise.model.special import concentration_of, exp_remainder, log_gamma_scale, mean_one_gamma


class Hierarchical(Hierarchy):
    """mu, sigma ~ priors; lam[g] ~ Gamma(alpha, beta) with alpha = mu^2 / sigma^2 and beta = mu / sigma^2."""

    population = "gamma"
    formula = (
        ("λ<sub>g</sub> ~ Gamma(α, β)", "lam: the rate of group g, with mean μ and standard deviation σ"),
        (
            "α = μ<sup>2</sup> / σ<sup>2</sup>, β = μ / σ<sup>2</sup>",
            "alpha and beta: shape and rate of that distribution",
        ),
    )
    without_mean = ("alpha", "beta")

    def derived(self, mu: jax.Array, sigma: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The shape alpha = mu^2 / sigma^2 and the rate beta = mu / sigma^2."""
        return numpyro.deterministic("alpha", mu**2 / sigma**2), numpyro.deterministic("beta", mu / sigma**2)

    def distribution(self, first: jax.Array, second: jax.Array) -> dist.Distribution:
        """Gamma(alpha, beta)."""
        return dist.Gamma(first, second)

    def law_at(self, mu: jax.Array, sigma: jax.Array) -> Law:
        """Mu and alpha, which is limited."""
        return {"mu": mu, "shape": concentration_of(sigma / mu)}

    def information_on_mean(self, sigma: jax.Array, rate: jax.Array, weight: jax.Array) -> jax.Array:
        """A group shows log mu with the variance 1 / shape of the population and 1 / weight of its counts.

        So mu is known from all events if sigma is small, and only to about sigma / sqrt(G) if it is large.
        """
        shape = concentration_of(sigma / rate)
        return jnp.sum(shape * weight / (shape + weight))

    def standardised_rates(
        self, mu: jax.Array, sigma: jax.Array, rate: jax.Array, weight: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """In log lam, the prior has weight alpha."""
        shape = concentration_of(sigma / mu)
        scale = 1.0 / jnp.sqrt(shape + weight)
        z = sample_z(rate.shape[0])
        log_w = weight / (shape + weight) * jnp.log(rate / mu) + scale * z  # w = lam / mu ~ Gamma(shape, shape)
        log_density = log_gamma_scale(shape) - shape * exp_remainder(log_w) + jnp.log(scale)
        return mu * jnp.exp(log_w), log_density

    def rate_law(self, families: Families, values: PriorValues) -> RateLaw:
        """Gamma with mean mu and shape alpha."""
        return RateLaw("Gamma", {}, {"mu": "mu", "shape": "alpha"})

    def new_rates(self, draws: Draws, families: Families, values: PriorValues, rng: np.random.Generator) -> np.ndarray:
        """One draw from the Gamma of each posterior draw."""
        return draws["mu"] * mean_one_gamma(draws["alpha"], rng)


HIERARCHICAL = Hierarchical()
