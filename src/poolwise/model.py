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
on the number of rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import gammaln, xlogy

from poolwise.priors import distribution

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
    mu = numpyro.sample("mu", prior["mu"])
    sigma = numpyro.sample("sigma", prior["sigma"])
    alpha = numpyro.deterministic("alpha", mu**2 / sigma**2)
    beta = numpyro.deterministic("beta", mu / sigma**2)
    with numpyro.plate("group", num_groups):
        return numpyro.sample("lam", dist.Gamma(alpha, beta))


RATES = {"pooled": pooled, "unpooled": unpooled, "hierarchical": hierarchical}


@dataclass(frozen=True)
class Model:
    """One variant. Hashable: a compiled program is kept for each.

    Parameters
    ----------
    pooling : a key of `POOLINGS`
    likelihood : a key of `LIKELIHOODS`
    families : (site, family) for every site that takes a prior, in the order of `sites_of`
    """

    pooling: str
    likelihood: str
    families: tuple[tuple[str, str], ...]

    def collapsed(self, statistics: Arrays, values: PriorValues) -> None:
        """The joint density of parameters and counts, from `data.sufficient_statistics`; what NUTS samples."""
        lam, concentration = self._parameters(values, statistics["group_total"].shape[0])
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
        lam, concentration = self._parameters(values, num_groups)
        rate = exposure * lam[group]
        noise = dist.Poisson(rate) if concentration is None else dist.NegativeBinomial2(rate, concentration)
        with numpyro.plate("row", group.shape[0]):
            numpyro.sample("y", noise, obs=count)

    def _parameters(self, values: PriorValues, num_groups: int) -> tuple[jax.Array, jax.Array | None]:
        """The rates (G,) and the concentration phi, None for the Poisson."""
        prior = {site: distribution(family, values[site]) for site, family in self.families}
        lam = RATES[self.pooling](prior, num_groups)
        if self.likelihood == "poisson":
            return lam, None
        delta = numpyro.sample("delta", prior["delta"])  # outside the plate: one dispersion for all groups
        return lam, numpyro.deterministic("phi", concentration_of(delta))


def sites_of(pooling: str, likelihood: str) -> tuple[str, ...]:
    """The sites of a variant that take a prior, in the order of `SITES`."""
    used = POOLINGS[pooling] + LIKELIHOODS[likelihood]
    return tuple(site for site in SITES if site in used)


def concentration_of(delta: jax.Array) -> jax.Array:
    """Phi = 1 / delta^2, at most 1e30: from about 1e16 on the likelihood is the Poisson's to the last bit."""
    return 1.0 / jnp.maximum(delta**2, 1e-30)


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


def log_rising(a: jax.Array, n: jax.Array) -> jax.Array:
    """Log Gamma(a + n) - log Gamma(a) - n log a = sum_{j<n} log1p(j / a), for a > 0 and n >= 0; arguments broadcast.

    A difference of log-gammas loses every digit for large a (phi reaches 1e30) and is slow. Instead eight factors are
    taken off, Gamma(a) = Gamma(a + 8) / (a (a + 1) ... (a + 7)), and Stirling's series is used from a + 8 on, where
    its first omitted term is below 3e-13.

    References
    ----------
    NIST Digital Library of Mathematical Functions, 5.5.1 and 5.11.1.
    """
    x = a + 8.0
    factors = 1.0 + n / (a + 1.0)
    for j in range(2, 8):
        factors = factors * (1.0 + n / (a + j))
    taken_off = jnp.log1p(n / a) + jnp.log(factors)  # the factor of j = 0 alone: it may be huge
    series = (x + n - 0.5) * jnp.log1p(n / x) - n + _stirling(x + n) - _stirling(x)
    return series + n * jnp.log1p(8.0 / a) - taken_off


def _stirling(x: jax.Array) -> jax.Array:
    """Log Gamma(x) - [(x - 1/2) log x - x + log(2 pi) / 2], for x >= 8."""
    inverse = 1.0 / x
    square = inverse * inverse
    return inverse * (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square * (1 / 1680 - square / 1188))))
