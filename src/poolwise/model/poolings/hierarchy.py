"""Partial pooling: the rates come from one distribution with estimated mean mu and standard deviation sigma.

An instance gives the distribution. Each has these two parameters, so priors and results mean the same whatever its
shape.
"""

from abc import abstractmethod

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from poolwise.model.likelihoods.base import Likelihood
from poolwise.model.mixings.base import Law
from poolwise.model.poolings.base import (
    MARGINAL,
    Density,
    Draws,
    NewGroupWords,
    Pooling,
    group_rates,
    overall_rate,
)
from poolwise.model.priors import Arrays, Priors
from poolwise.model.sites import Feature, Site
from poolwise.model.standardised_prior import StandardisedPrior


class Hierarchy(Pooling):
    """mu, sigma ~ priors; lam[g] ~ a distribution with this mean and standard deviation.

    An instance gives `law_at`, and the distribution in three forms: `derived`, `distribution`, `standardised_rates`.
    """

    name, short = "hierarchical", "hier"
    sites = (
        Site("mu", "μ", "mean rate of the population of groups"),
        Site("sigma", "σ", "standard deviation between the groups' rates"),
    )
    meaning = (
        "Partial pooling: every group has its own rate. The rates come from one distribution, whose mean and spread are"
        " also estimated, so groups with few data borrow strength from the others: their rates move towards the mean"
        " of that population (shrinkage)."
    )
    has_population = True
    describes = (Feature.DIFFERENT_GROUPS,)
    new_group_words = NewGroupWords(
        title="What would a new group be like?",
        how_to_read="A new group is drawn from the population of the groups, including its uncertainty.",
    )

    @abstractmethod
    def derived(self, mu: jax.Array, sigma: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The two parameters of `distribution`, stored with the sites, inside a NumPyro model."""

    @abstractmethod
    def distribution(self, first: jax.Array, second: jax.Array) -> dist.Distribution:
        """The distribution of the rates, from the parameters of `derived`."""

    @abstractmethod
    def information_on_mean(self, sigma: jax.Array, rate: jax.Array, weight: jax.Array) -> jax.Array:
        """Fisher information of the counts on log mu given sigma, (), about; it only places mu.

        Parameters
        ----------
        rate : (), of all rows
        weight : (G,), information of the counts of each group on its log lam
        """

    @abstractmethod
    def standardised_rates(
        self, mu: jax.Array, sigma: jax.Array, rate: jax.Array, weight: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """The rates (G,) whose coordinate z (G,) is sampled here, and the log density of z, each (G,).

        log lam[g] = centre + scale z[g]. Centres and scales approximate the mean and sd of log lam given everything
        else: the counts have their Fisher information `weight` on log lam at their own rate, plus half a count of the
        overall rate, `rate`.
        """

    def rates(self, prior: Priors, num_groups: int) -> jax.Array:
        """The rates, independent given mu and sigma."""
        mu, sigma = self.mean_and_sd(prior)
        first, second = self.derived(mu, sigma)
        with numpyro.plate("group", num_groups):
            return numpyro.sample("lam", self.distribution(first, second))

    def mean_and_sd(self, prior: Priors) -> tuple[jax.Array, jax.Array]:
        """mu, sigma ~ priors."""
        return numpyro.sample("mu", prior["mu"]), numpyro.sample("sigma", prior["sigma"])

    def law_of_rates(self, prior: Priors) -> Law:
        """From the priors of mu and sigma."""
        mu, sigma = self.mean_and_sd(prior)
        self.derived(mu, sigma)
        return self.law_at(mu, sigma)

    @property
    def parameterisations(self) -> dict[str, Density]:
        """Three, with the same posterior."""
        return {"standardised": self.standardised, "centred": self.centred, MARGINAL: self.marginal}

    def standardised(self, prior: Priors, statistics: Arrays, likelihood: Likelihood) -> None:
        """Mu is moved in a standardised coordinate, and z[g] in place of lam[g].

        Centres and scales approximate the mean and sd of log mu given sigma, and of log lam given everything else. So
        the coordinate of mu and z are about standard normal for any sigma, and neither small nor large sigma make a
        funnel. They only place mu and z: the density is that of mu and lam, with the Jacobian.
        """
        params = likelihood.sample_params(prior)
        sigma = numpyro.sample("sigma", prior["sigma"])
        shown = likelihood.showing_rates(statistics)
        rate, overall = group_rates(shown), overall_rate(shown)  # (G,), ()
        weight = likelihood.information(statistics, rate, params)
        known = self.information_on_mean(sigma, overall, weight)
        mu = numpyro.sample("mu", StandardisedPrior(prior["mu"], overall, known))
        self.derived(mu, sigma)
        lam, log_density = self.standardised_rates(mu, sigma, rate, weight)
        numpyro.factor("lam | z", jnp.sum(log_density))
        numpyro.deterministic("lam", lam)
        numpyro.factor("y", likelihood.log_likelihood(statistics, lam, params))

    def shown_by(self, statistics: Arrays) -> dict[str, jax.Array]:
        """The rates, their mean, and their standard deviation, at least a tenth of the mean: equal rates may differ."""
        lam, alike = group_rates(statistics), statistics.get("groups_alike")
        mean = jnp.average(lam, weights=alike)
        spread = jnp.std(lam) if alike is None else jnp.sqrt(jnp.average((lam - mean) ** 2, weights=alike))
        return {"lam": lam, "mu": mean, "sigma": jnp.maximum(spread, 0.1 * mean)}

    def offered(self, likelihood: Likelihood) -> list[str]:
        """The marginal parameterisation needs a likelihood whose rates can be integrated out."""
        return [name for name in self.parameterisations if name != MARGINAL or self.mixing.integrates(likelihood)]

    def new_rate_moments(self, draws: Draws, rates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Given mu and sigma: less noise than from one drawn rate."""
        return draws["mu"], draws["mu"] ** 2 + draws["sigma"] ** 2


def sample_z(num_groups: int) -> jax.Array:
    """The standardised coordinates of the rates, (G,), without a density of their own."""
    with numpyro.plate("group", num_groups):
        return numpyro.sample("z", dist.ImproperUniform(dist.constraints.real, (), ()))
