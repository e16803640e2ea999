"""A pooling, a likelihood and priors to the joint density of parameters and counts.

Row i, in group g(i) and with exposure e_i, has the rate r_i = e_i lam[g(i)]; of a table with covariates it is
e_i exp(x_i beta) lam[g(i)], see `model.effects`. The pooling (`model.poolings`) relates the rates lam of the groups;
the likelihood (`model.likelihoods`) is the law of a count given its rate.

Each model has two forms that agree (tests compare them): `Model.generative`, with one draw or observation per row, and
`Model.log_joint`, the density of the statistics of a table, which NUTS samples.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import numpyro

from poolwise.counts.cells import Counts
from poolwise.model import effects
from poolwise.model.effects import BETA
from poolwise.model.likelihoods import LIKELIHOODS, likelihood_of
from poolwise.model.likelihoods.base import Likelihood, Params
from poolwise.model.poolings import POOLINGS, pooling_of
from poolwise.model.poolings.base import MARGINAL, Pooling, RateLaw
from poolwise.model.priors import GAMMAS, Arrays, Priors, PriorValues, distribution, prior_moments
from poolwise.model.sites import Site
from poolwise.model.special import positive

_PLUG_INS: tuple[Pooling | Likelihood, ...] = (*POOLINGS.values(), *LIKELIHOODS.values())
SITES: dict[str, Site] = {site.name: site for each in _PLUG_INS for site in each.sites} | {BETA.name: BETA}
AUXILIARY = ("y", "z")  # sites that are not parameters
# medians and quantiles only
WITHOUT_MEAN = tuple(dict.fromkeys(name for each in _PLUG_INS for name in each.without_mean))
BLOCK = 2**20  # values held at once while rates are drawn


@dataclass(frozen=True)
class Model:
    """One variant. Hashable: each has a cached compiled program.

    Parameters
    ----------
    families : (site, family) for every site that takes a prior, in the order of `sites_of`
    parameterisation : one of the pooling's; all have the same posterior
    effects : names of the effects of covariates, in the order of the design matrix
    """

    pooling: Pooling
    likelihood: Likelihood
    families: tuple[tuple[str, str], ...]
    parameterisation: str
    effects: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of the variant."""
        return f"{self.pooling.title} {self.likelihood.title}"

    @property
    def is_marginal(self) -> bool:
        """Whether `log_joint` integrates the rates out, so they are drawn afterwards."""
        return self.parameterisation == MARGINAL

    @property
    def integrates_rates(self) -> bool:
        """Whether the rates can be integrated out: their law and the likelihood allow it."""
        has_law = self.pooling.has_population or dict(self.families)["lam"] in GAMMAS
        return not self.pooling.is_shared and has_law and self.pooling.mixing.integrates(self.likelihood)

    @property
    def sites(self) -> dict[str, str]:
        """Sampled site -> the site whose prior it has: each effect of a covariate has that of beta."""
        of_prior = {site: (site,) for site, _ in self.families} | {BETA.name: map(effects.site_of, self.effects)}
        return {site: prior for prior, sites in of_prior.items() for site in sites}

    def log_joint(self, statistics: Arrays, values: PriorValues) -> None:
        """The joint density of parameters and counts, from `likelihood.statistics`; NUTS samples it."""
        density, prior = self.pooling.parameterisations[self.parameterisation], self.prior(values)
        if self.effects:
            statistics = effects.exposed(self.likelihood.statistics, statistics, self.sample_effects(prior))
        density(prior, statistics, self.likelihood)

    def sample_effects(self, prior: Priors) -> jax.Array:
        """The effects of the covariates, (P,), inside a NumPyro model."""
        return effects.sample(self.effects, prior[BETA.name]) if self.effects else jnp.zeros(0)

    def exposed(self, statistics: Arrays, draw: Arrays) -> Arrays:
        """The statistics at the effects of one draw."""
        return effects.at_draw(self.likelihood.statistics, statistics, self.effects, draw)

    def statistics_of(self, counts: Counts) -> dict[str, np.ndarray]:
        """The statistics of a table that `log_joint` takes: without rates, one group stands for all that are alike."""
        statistics = self.likelihood.statistics
        return statistics.of_kinds(counts) if self.is_marginal else statistics.of(counts)

    def parameters(self, values: PriorValues, num_groups: int) -> tuple[jax.Array, Params, jax.Array]:
        """The rates (G,), the parameters of the likelihood and the effects (P,), from their priors."""
        prior = self.prior(values)
        return (
            self.pooling.rates(prior, num_groups),
            self.likelihood.sample_params(prior),
            self.sample_effects(prior),
        )

    def generative(
        self,
        group: jax.Array,
        exposure: jax.Array,
        values: PriorValues,
        num_groups: int,
        count: jax.Array | None = None,
        x: jax.Array | None = None,
    ) -> None:
        """One draw or observation per row, (N,); with effects, `x` is the design matrix (N, P)."""
        lam, params, beta = self.parameters(values, num_groups)
        size = exposure if x is None or not self.effects else exposure * jnp.exp(x @ beta)
        with numpyro.plate("row", group.shape[0]):
            law = self.likelihood.distribution(size * lam[group], self.likelihood.at(params, exposure))
            numpyro.sample("y", law, obs=count)

    def draw_rates(self, key: jax.Array, draws: Arrays, statistics: Arrays) -> jax.Array:
        """The rates that `log_joint` integrates out, given its sites and the counts: (D, G) for draws (D,)."""

        def one(given: tuple) -> jax.Array:
            key, law, draw = given
            params = self.likelihood.params_of(draw)
            return self.pooling.mixing.draw_rates(key, self.likelihood, self.exposed(statistics, draw), law, params)

        keys, law = jax.random.split(key, draws["mu"].shape[0]), self.pooling.law_at(draws["mu"], draws["sigma"])
        size = max(1, BLOCK // statistics["group_total"].shape[0])
        lam = jax.lax.map(one, (keys, law, dict(draws)), batch_size=size)
        return positive(lam)

    def rate_law(self, values: PriorValues) -> RateLaw:
        """The law of a group's rate given the parameters that are not rates."""
        return self.pooling.rate_law(dict(self.families), values)

    def prior(self, values: PriorValues) -> Priors:
        """The prior of every site."""
        return {site: distribution(family, values[site]) for site, family in self.families}


def count_model(
    pooling: str,
    likelihood: str,
    families: Mapping[str, str],
    parameterisation: str | None = None,
    *,
    population: str | None = None,
    overdispersion: str | None = None,
    effects: tuple[str, ...] = (),
) -> Model:
    """The variant with these names and choices.

    Parameters
    ----------
    families : by site
    parameterisation, population, overdispersion : None is the first that the pooling or the likelihood offers
    effects : of covariates
    """
    used, noise = pooling_of(pooling, population), likelihood_of(likelihood, overdispersion)
    sites = sites_of(pooling, likelihood, has_covariates=BETA.name in families)
    chosen = tuple((site, families[site]) for site in sites)
    return Model(used, noise, chosen, parameterisation or next(iter(used.parameterisations)), effects)


def without_mean(model: Model, values: PriorValues, *, has_events: bool) -> tuple[str, ...]:
    """Parameters whose posterior mean or standard deviation does not exist: `WITHOUT_MEAN`, and some sites.

    The probability of counts is at most 1, so the posterior has every moment that the prior has. As sigma grows, rows
    with an event in G groups have the probability sigma^(-2G) (gamma populations), and delta likewise: one event gives
    sigma and delta a mean and a standard deviation under any prior. Without an event, they are as heavy as the prior.

    Of a log-normal population that probability is only about sigma^(-G/4), and where mu grows with the root of sigma it
    hardly falls at all: the median rate mu^2 / sigma is then constant. So mu and sigma count as heavy as their priors,
    with events too. Counts that a hurdle keeps from 0 tell less: see `Likelihood.least_telling`, `as_heavy_as_prior`.

    Parameters
    ----------
    has_events : whether a count is at least `least_telling`
    """
    open_sites = set(model.likelihood.as_heavy_as_prior)
    if model.pooling.has_population and not has_events:
        open_sites |= {site for site, _ in model.families}
    elif model.pooling.has_population and not model.pooling.is_bounded_by_events:
        open_sites |= {site.name for site in model.pooling.sites}
    heavy = [
        site for site, family in model.families if site in open_sites and not all(prior_moments(family, values[site]))
    ]
    return (*WITHOUT_MEAN, *heavy)


def sites_of(pooling: str, likelihood: str, *, has_covariates: bool = False) -> tuple[str, ...]:
    """The sites of a variant that take a prior."""
    of_covariates = (BETA,) if has_covariates else ()
    sites = (*POOLINGS[pooling].sites, *LIKELIHOODS[likelihood].sites, *of_covariates)
    return tuple(site.name for site in sites)
