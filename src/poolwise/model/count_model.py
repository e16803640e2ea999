"""Three poolings x two likelihoods x priors: the models of poolwise.

Count y_i of row i, in group g(i), with exposure e_i, has mean r_i = e_i lam[g(i)].

    pooled         lam ~ prior                      one rate for all groups
    unpooled       lam[g] ~ prior                   independent rates
    hierarchical   mu, sigma ~ priors               lam[g] ~ Gamma(mean mu, standard deviation sigma)
                                                    alpha = mu^2 / sigma^2, beta = mu / sigma^2

    poisson              y_i ~ Poisson(r_i)
    negative_binomial    delta ~ prior              y_i ~ NegativeBinomial(mean r_i, concentration phi = 1 / delta^2)
                                                    variance r_i + (delta r_i)^2; delta = 0 is the Poisson

Each model has two forms that agree (tests hold them together): `Model.rows`, the generative form, and
`Model.collapsed`, the density of the sufficient statistics, which is what is sampled: its cost does not depend
on the number of rows. `FORMS` are three ways to sample the rates of a hierarchical model, with the same posterior.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import gammaln, xlogy

from poolwise import integrated
from poolwise.priors import distribution
from poolwise.special import concentration_of, exp_remainder, log_gamma_scale, log_rising

Arrays = Mapping[str, jax.Array]
PriorValues = Mapping[str, Mapping[str, jax.Array | np.ndarray]]
Priors = Mapping[str, dist.Distribution]

POOLINGS: dict[str, tuple[str, ...]] = {  # the sites that take a prior
    "pooled": ("lam",),
    "unpooled": ("lam",),
    "hierarchical": ("mu", "sigma"),
}
LIKELIHOODS: dict[str, tuple[str, ...]] = {"poisson": (), "negative_binomial": ("delta",)}
SITES = ("lam", "mu", "sigma", "delta")
FORMS = ("sampled", "standardised", "integrated")  # of the rates in a hierarchical model
AUXILIARY = ("y", "z")  # sites that are no parameters


def pooled(prior: Priors, num_groups: int) -> jax.Array:
    """Lam ~ prior; the rate of every group, (G,)."""
    lam = numpyro.sample("lam", prior["lam"])
    return jnp.broadcast_to(lam, (num_groups,))


def unpooled(prior: Priors, num_groups: int) -> jax.Array:
    """lam[g] ~ prior, independently, (G,)."""
    with numpyro.plate("group", num_groups):
        return numpyro.sample("lam", prior["lam"])


def hierarchical(prior: Priors, num_groups: int) -> jax.Array:
    """lam[g] ~ Gamma(mu^2 / sigma^2, mu / sigma^2), (G,)."""
    *_, alpha, beta = population(prior)
    with numpyro.plate("group", num_groups):
        return numpyro.sample("lam", dist.Gamma(alpha, beta))


def population(prior: Priors) -> tuple[jax.Array, ...]:
    """mu, sigma ~ priors, and alpha = mu^2 / sigma^2, beta = mu / sigma^2."""
    mu = numpyro.sample("mu", prior["mu"])
    sigma = numpyro.sample("sigma", prior["sigma"])
    alpha = numpyro.deterministic("alpha", mu**2 / sigma**2)
    beta = numpyro.deterministic("beta", mu / sigma**2)
    return mu, sigma, alpha, beta


def standardised(prior: Priors, statistics: Arrays, concentration: jax.Array | None) -> jax.Array:
    """The rates of `hierarchical`, (G,), with log lam[g] = centre + scale z[g] and z[g] sampled in their place.

    Centre and scale are about mean and sd of log lam given everything else: the prior weighs alpha, the counts what
    they tell of log lam (Fisher's information), at their own rate, half a count of the overall rate added. So z is
    about standard normal for any mu and sigma, and small sigma are no funnel. They only place z: its density is that of
    lam, with the Jacobian.
    """
    mu, sigma, *_ = population(prior)
    shape = concentration_of(sigma / mu)
    total, exposure = statistics["group_total"], statistics["group_exposure"]
    overall = (jnp.sum(total) + 0.5) / jnp.sum(exposure)
    rate = (total + 0.5) / (exposure + 0.5 / overall)  # (G,)
    weight = information(statistics, rate, concentration)
    scale = 1.0 / jnp.sqrt(shape + weight)
    with numpyro.plate("group", rate.shape[0]):
        z = numpyro.sample("z", dist.ImproperUniform(dist.constraints.real, (), ()))
    log_w = weight / (shape + weight) * jnp.log(rate / mu) + scale * z  # w = lam / mu ~ Gamma(shape, shape)
    log_density = log_gamma_scale(shape) - shape * exp_remainder(log_w) + jnp.log(scale)
    numpyro.factor("lam | z", jnp.sum(log_density))
    return numpyro.deterministic("lam", mu * jnp.exp(log_w))


RATES = {"pooled": pooled, "unpooled": unpooled, "hierarchical": hierarchical}


@dataclass(frozen=True)
class Model:
    """One variant. Hashable: a compiled program is kept for each.

    Parameters
    ----------
    pooling : a key of `POOLINGS`
    likelihood : a key of `LIKELIHOODS`
    families : (site, family) for every site that takes a prior, in the order of `sites_of`
    rates : one of `FORMS`; all of them give the same posterior. Only a hierarchical model has another than "sampled"
    """

    pooling: str
    likelihood: str
    families: tuple[tuple[str, str], ...]
    rates: str = "sampled"

    def collapsed(self, statistics: Arrays, values: PriorValues) -> None:
        """The joint density of parameters and counts, from `data.sufficient_statistics`; what NUTS samples."""
        prior = self._prior(values)
        if self.is_integrated:
            mu, sigma, *_ = population(prior)
            shape, concentration = concentration_of(sigma / mu), self._concentration(prior)
            numpyro.factor("y", integrated.log_marginal(statistics, mu, shape, concentration))
            return
        if self.rates == "standardised":
            concentration = self._concentration(prior)
            lam = standardised(prior, statistics, concentration)
        else:
            lam = RATES[self.pooling](prior, statistics["group_total"].shape[0])
            concentration = self._concentration(prior)
        numpyro.factor("y", collapsed_log_likelihood(statistics, lam, concentration))

    def rows(
        self,
        group: jax.Array,
        exposure: jax.Array,
        values: PriorValues,
        num_groups: int,
        count: jax.Array | None = None,
    ) -> None:
        """The generative form: one draw or observation per row, (N,)."""
        prior = self._prior(values)
        lam, concentration = RATES[self.pooling](prior, num_groups), self._concentration(prior)
        rate = exposure * lam[group]
        noise = dist.Poisson(rate) if concentration is None else dist.NegativeBinomial2(rate, concentration)
        with numpyro.plate("row", group.shape[0]):
            numpyro.sample("y", noise, obs=count)

    @property
    def is_integrated(self) -> bool:
        """Whether `collapsed` has no rates, so that they remain to be drawn."""
        return self.rates == "integrated"

    def integrated_rates(self, key: jax.Array, draws: Arrays, statistics: Arrays) -> jax.Array:
        """The rates that `collapsed` integrates out, given its sites and the counts: (D, G) for draws (D,)."""
        shape = concentration_of(draws["sigma"] / draws["mu"])
        return integrated.draw_rates(key, statistics, draws["mu"], shape, draws.get("phi"))

    def _prior(self, values: PriorValues) -> Priors:
        return {site: distribution(family, values[site]) for site, family in self.families}

    def _concentration(self, prior: Priors) -> jax.Array | None:
        """The concentration phi, None for the Poisson."""
        if self.likelihood == "poisson":
            return None
        delta = numpyro.sample("delta", prior["delta"])  # outside the plate: one dispersion for all groups
        return numpyro.deterministic("phi", concentration_of(delta))


def sites_of(pooling: str, likelihood: str) -> tuple[str, ...]:
    """The sites of a variant that take a prior, in the order of `SITES`."""
    used = POOLINGS[pooling] + LIKELIHOODS[likelihood]
    return tuple(site for site in SITES if site in used)


def information(statistics: Arrays, lam: jax.Array, concentration: jax.Array | None) -> jax.Array:
    """Fisher's information of the counts of each group on log lam, (G,)."""
    if concentration is None:
        return statistics["group_exposure"] * lam
    one_each = lam.shape == statistics["stratum_group"].shape
    mean = statistics["stratum_exposure"] * (lam if one_each else lam[statistics["stratum_group"]])  # (T,)
    by_stratum = statistics["stratum_rows"] * mean / (1.0 + mean / concentration)
    return by_stratum if one_each else jnp.zeros_like(lam).at[statistics["stratum_group"]].add(by_stratum)


def collapsed_log_likelihood(statistics: Arrays, lam: jax.Array, concentration: jax.Array | None) -> jax.Array:
    """Log likelihood of all rows from their sufficient statistics, ().

    Parameters
    ----------
    statistics : see `data.sufficient_statistics`
    lam : (G,)  counts per unit of exposure
    concentration : (), phi; None for the Poisson
    """
    constant = statistics["constant"]
    if concentration is None:
        return jnp.sum(xlogy(statistics["group_total"], lam) - statistics["group_exposure"] * lam) + constant
    one_each = lam.shape == statistics["stratum_group"].shape  # exposures are the same: strata are the groups
    lam_t = lam if one_each else lam[statistics["stratum_group"]]  # (T,); a gather costs as much as all the rest
    total, rows = statistics["stratum_total"], statistics["stratum_rows"]
    by_stratum = xlogy(total, lam_t) - (total + rows * concentration) * jnp.log1p(
        statistics["stratum_exposure"] * lam_t / concentration
    )
    by_value = statistics["value_rows"] * log_rising(concentration, statistics["value"])  # (K,)
    return jnp.sum(by_stratum) + jnp.sum(by_value) + constant


def log_likelihood(count: jax.Array, rate: jax.Array, concentration: jax.Array | None) -> jax.Array:
    """Log probability of single counts; arguments broadcast. `rate` is exposure times lam."""
    if concentration is None:
        return xlogy(count, rate) - rate - gammaln(count + 1.0)
    spread = (count + concentration) * jnp.log1p(rate / concentration)
    return xlogy(count, rate) - spread + log_rising(concentration, count) - gammaln(count + 1.0)
