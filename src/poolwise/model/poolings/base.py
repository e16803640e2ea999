"""The interface of a pooling: the relation of the groups' rates, its parameterisations, the rate of a new group.

An instance must give its name, sites, rates and texts. A parameterisation states the joint density of parameters and
counts for the sampler; all parameterisations of a pooling have the same posterior.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
import numpyro

from poolwise.model.likelihoods.base import Likelihood
from poolwise.model.mixings.base import Law, Mixing
from poolwise.model.mixings.gamma import GAMMA
from poolwise.model.priors import GAMMAS, Arrays, Priors, PriorValues
from poolwise.model.sites import Feature, Site

MARGINAL = "marginal"  # the parameterisation with the rates integrated out
# groups from which it is chosen: it gives more effective draws a second with fewer too, but others suffice for them
MANY = 200
Families = Mapping[str, str]  # site -> family of its prior
Draws = Mapping[str, np.ndarray]  # site -> (S,), or (S, G) for rates that differ by group
Density = Callable[[Priors, Arrays, Likelihood], None]


@dataclass(frozen=True)
class RateLaw:
    """The law of the rate of a group, given the parameters that are not rates.

    Attributes
    ----------
    family : a key of `MIXINGS`, with the parameters named there ("Gamma": `shape` and mean `mu`), or of `FAMILIES`
    values : its fixed parameters
    drawn : parameter -> site of the posterior, for all others
    """

    family: str
    values: Mapping[str, jax.Array | np.ndarray]
    drawn: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class NewGroupWords:
    """A new group in words: the title of its picture, how to read it, a remark on the source."""

    title: str
    how_to_read: str
    source: str = ""


class Pooling(ABC):
    """The relation of the groups' rates.

    Attributes
    ----------
    name, short : in configs, and in the names of runs
    population : the choice of `pooling.population` among poolings of one name; None if there is no choice
    qualifier : what precedes its name in sentences, if its choice is not the default
    sites : its parameters that take a prior
    meaning : its assumption, one sentence
    formula : (HTML formula, its meaning), from the rates down to the sites with a prior
    rate_symbol : of the rate of row i, HTML
    whose_rate : "the rate of its group"
    is_shared : whether all groups have one rate, so `lam` is one number
    has_population : whether the rates come from an estimated distribution, with mean `mu` and sd `sigma`
    informs_new_group : whether the data inform a new group
    mixing : the family of laws of a rate that `marginal` integrates out
    describes : the features of counts that it describes beyond one rate
    is_bounded_by_events : whether one event gives its sites a posterior mean and a standard deviation under any prior
    without_mean : names of derived values without a finite posterior mean
    """

    name: str
    short: str
    population: str | None = None
    qualifier: str = ""
    sites: tuple[Site, ...]
    meaning: str
    formula: tuple[tuple[str, str], ...] = ()
    rate_symbol: str = "λ<sub>g(i)</sub>"
    whose_rate: str = "the rate of its group"
    new_group_words: NewGroupWords
    is_shared = False
    has_population = False
    informs_new_group = True
    mixing: Mixing = GAMMA
    describes: tuple[Feature, ...] = ()
    is_bounded_by_events = True
    without_mean: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Its name in sentences."""
        return f"{self.qualifier} {self.name.replace('_', ' ')}".strip()

    @abstractmethod
    def rates(self, prior: Priors, num_groups: int) -> jax.Array:
        """The rates of all groups, (G,), inside a NumPyro model."""

    @property
    def parameterisations(self) -> dict[str, Density]:
        """Name -> joint density of parameters and counts; the first is the default."""
        return {"centred": self.centred}

    def centred(self, prior: Priors, statistics: Arrays, likelihood: Likelihood) -> None:
        """The rates themselves are sampled."""
        lam = self.rates(prior, statistics["group_total"].shape[0])
        params = likelihood.sample_params(prior)
        numpyro.factor("y", likelihood.log_likelihood(statistics, lam, params))

    def marginal(self, prior: Priors, statistics: Arrays, likelihood: Likelihood) -> None:
        """The rates are integrated out, where they have a law of the family `mixing`; they are drawn afterwards."""
        law = self.law_of_rates(prior)
        params = likelihood.sample_params(prior)
        numpyro.factor("y", self.mixing.log_marginal(likelihood, statistics, law, params))

    def law_of_rates(self, prior: Priors) -> Law:
        """The law of the rates, inside a NumPyro model; by default their prior, if that is a gamma."""
        lam = prior["lam"]
        shape = jnp.asarray(getattr(lam, "concentration", 1.0))  # an exponential prior has none
        return {"mu": shape / lam.rate, "shape": shape}

    def law_at(self, mu: jax.Array, sigma: jax.Array) -> Law:
        """The law of the rates of a population with this mean and standard deviation."""
        raise NotImplementedError(f"{self.name} has no population of rates")

    def shown_by(self, statistics: Arrays) -> dict[str, jax.Array]:
        """Site -> its value as the counts show it, where chains may start; by default the rate of each group."""
        return {"lam": group_rates(statistics)}

    def offered(self, likelihood: Likelihood) -> list[str]:
        """The parameterisations available with a likelihood."""
        return list(self.parameterisations)

    def rate_law(self, families: Families, values: PriorValues) -> RateLaw:
        """The law of a group's rate; by default the prior of `lam`."""
        family, given = families["lam"], values["lam"]
        if family not in GAMMAS:
            return RateLaw(family, given)
        shape = np.asarray(given.get("concentration", 1.0), float)
        return RateLaw("Gamma", {"shape": shape, "mu": shape / given["rate"]})

    def chosen(self, likelihood: Likelihood, num_groups: int) -> str:
        """The parameterisation that suits a table: the first; of many groups, the marginal one if it is offered."""
        offered = self.offered(likelihood)
        return MARGINAL if num_groups >= MANY and MARGINAL in offered else offered[0]

    @abstractmethod
    def new_rates(self, draws: Draws, families: Families, values: PriorValues, rng: np.random.Generator) -> np.ndarray:
        """The rate of a new group, one per draw of the posterior, (S,)."""

    def new_rate_moments(self, draws: Draws, rates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """E lam and E lam^2 of a new group for each draw; by default from the one rate drawn for it."""
        return rates, rates**2


def group_rates(statistics: Arrays) -> jax.Array:
    """The rate that each group shows, (G,), with half a count of the overall rate added: positive without events."""
    total, exposure = statistics["group_total"], statistics["group_exposure"]
    return (total + 0.5) / (exposure + 0.5 / overall_rate(statistics))


def overall_rate(statistics: Arrays) -> jax.Array:
    """The rate of all rows, ()."""
    return (jnp.sum(statistics["group_total"]) + 0.5) / jnp.sum(statistics["group_exposure"])
