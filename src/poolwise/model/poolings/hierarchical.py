"""Partial pooling: the rates come from one gamma distribution with estimated mean and standard deviation."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from poolwise.model.likelihoods.base import Likelihood
from poolwise.model.poolings.base import (
    MARGINAL,
    Density,
    Draws,
    Families,
    NewGroupWords,
    Pooling,
    RateLaw,
    group_rates,
    overall_rate,
)
from poolwise.model.priors import Arrays, Priors, PriorValues
from poolwise.model.sites import Feature, Site
from poolwise.model.special import concentration_of, exp_remainder, log_gamma_scale, mean_one_gamma
from poolwise.model.standardised_prior import StandardisedPrior


class Hierarchical(Pooling):
    """mu, sigma ~ priors; lam[g] ~ Gamma(alpha, beta) with alpha = mu^2 / sigma^2 and beta = mu / sigma^2."""

    name, short, population = "hierarchical", "hier", "gamma"
    sites = (
        Site("mu", "μ", "mean rate of the population of groups"),
        Site("sigma", "σ", "standard deviation between the groups' rates"),
    )
    meaning = (
        "Partial pooling: every group has its own rate. The rates come from one distribution, whose mean and spread are"
        " also estimated, so groups with few data borrow strength from the others: their rates move towards the mean"
        " of that population (shrinkage)."
    )
    formula = (
        ("λ<sub>g</sub> ~ Gamma(α, β)", "lam: the rate of group g, with mean μ and standard deviation σ"),
        (
            "α = μ<sup>2</sup> / σ<sup>2</sup>, β = μ / σ<sup>2</sup>",
            "alpha and beta: shape and rate of that distribution",
        ),
    )
    has_population = True
    describes = (Feature.DIFFERENT_GROUPS,)
    without_mean = ("alpha", "beta")
    new_group_words = NewGroupWords(
        title="What would a new group be like?",
        how_to_read="A new group is drawn from the population of the groups, including its uncertainty.",
    )

    def rates(self, prior: Priors, num_groups: int) -> jax.Array:
        """lam[g] ~ Gamma(alpha, beta)."""
        *_, alpha, beta = population(prior)
        with numpyro.plate("group", num_groups):
            return numpyro.sample("lam", dist.Gamma(alpha, beta))

    def gamma_of_rates(self, prior: Priors) -> tuple[jax.Array, jax.Array]:
        """Mu and alpha, from the priors of mu and sigma."""
        mu, sigma, *_ = population(prior)
        return mu, concentration_of(sigma / mu)

    @property
    def parameterisations(self) -> dict[str, Density]:
        """Three, with the same posterior."""
        return {"standardised": standardised, "centred": self.centred, MARGINAL: self.marginal}

    def shown_by(self, statistics: Arrays) -> dict[str, jax.Array]:
        """The rates, their mean, and their standard deviation, at least a tenth of the mean: equal rates may differ."""
        lam, alike = group_rates(statistics), statistics.get("groups_alike")
        mean = jnp.average(lam, weights=alike)
        spread = jnp.std(lam) if alike is None else jnp.sqrt(jnp.average((lam - mean) ** 2, weights=alike))
        return {"lam": lam, "mu": mean, "sigma": jnp.maximum(spread, 0.1 * mean)}

    def offered(self, likelihood: Likelihood) -> list[str]:
        """The marginal parameterisation needs a likelihood that integrates the rates out."""
        return [name for name in self.parameterisations if name != MARGINAL or likelihood.has_marginal]

    def rate_law(self, families: Families, values: PriorValues) -> RateLaw:
        """Gamma with mean mu and shape alpha."""
        return RateLaw("Gamma", {}, {"mu": "mu", "shape": "alpha"})

    def new_rates(self, draws: Draws, families: Families, values: PriorValues, rng: np.random.Generator) -> np.ndarray:
        """One draw from the Gamma of each posterior draw."""
        return draws["mu"] * mean_one_gamma(draws["alpha"], rng)

    def new_rate_moments(self, draws: Draws, rates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Given mu and sigma: less noise than from one drawn rate."""
        return draws["mu"], draws["mu"] ** 2 + draws["sigma"] ** 2


def population(prior: Priors) -> tuple[jax.Array, ...]:
    """mu, sigma ~ priors, and alpha, beta."""
    mu = numpyro.sample("mu", prior["mu"])
    sigma = numpyro.sample("sigma", prior["sigma"])
    return mu, sigma, *shape_and_rate(mu, sigma)


def shape_and_rate(mu: jax.Array, sigma: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The shape alpha = mu^2 / sigma^2 and the rate beta = mu / sigma^2 of the population."""
    return numpyro.deterministic("alpha", mu**2 / sigma**2), numpyro.deterministic("beta", mu / sigma**2)


def standardised(prior: Priors, statistics: Arrays, likelihood: Likelihood) -> None:
    """Mu is moved in a standardised coordinate, and log lam[g] = centre + scale z[g] with z[g] in place of lam[g].

    Centres and scales approximate the mean and sd of log mu given sigma, and of log lam given everything else. In log
    lam, the prior has weight alpha, the counts the Fisher information on log lam at their own rate, plus half a count
    of the overall rate. So the coordinate of mu and z are about standard normal for any sigma, and neither small nor
    large sigma make a funnel. They only place mu and z: the density is that of mu and lam, with the Jacobian.
    """
    params = likelihood.sample_params(prior)
    sigma = numpyro.sample("sigma", prior["sigma"])
    shown = likelihood.showing_rates(statistics)
    rate = group_rates(shown)  # (G,)
    weight = likelihood.information(statistics, rate, params)
    mu = numpyro.sample("mu", _mean_given(sigma, prior["mu"], overall_rate(shown), weight))
    shape_and_rate(mu, sigma)
    shape = concentration_of(sigma / mu)
    scale = 1.0 / jnp.sqrt(shape + weight)
    with numpyro.plate("group", rate.shape[0]):
        z = numpyro.sample("z", dist.ImproperUniform(dist.constraints.real, (), ()))
    log_w = weight / (shape + weight) * jnp.log(rate / mu) + scale * z  # w = lam / mu ~ Gamma(shape, shape)
    log_density = log_gamma_scale(shape) - shape * exp_remainder(log_w) + jnp.log(scale)
    numpyro.factor("lam | z", jnp.sum(log_density))
    lam = numpyro.deterministic("lam", mu * jnp.exp(log_w))
    numpyro.factor("y", likelihood.log_likelihood(statistics, lam, params))


def _mean_given(sigma: jax.Array, prior: dist.Distribution, rate: jax.Array, weight: jax.Array) -> StandardisedPrior:
    """The prior of mu, standardised given sigma.

    A group shows log mu with the variance 1 / shape of the population and 1 / weight of its counts. So mu is known from
    all events if sigma is small, and only to about sigma / sqrt(G) if it is large.

    Parameters
    ----------
    rate : (), of all rows
    weight : (G,), information of the counts of each group on its log lam
    """
    shape = concentration_of(sigma / rate)
    return StandardisedPrior(prior, rate, jnp.sum(shape * weight / (shape + weight)))


HIERARCHICAL = Hierarchical()
