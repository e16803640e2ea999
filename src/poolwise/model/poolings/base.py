"""What a pooling is: how the rates of groups relate, how they can be sampled, what they say of a new group.

An instance must give its name, its sites, its rates and its words. A parameterisation states the joint density of
parameters and counts for the sampler; all parameterisations of a pooling have one posterior.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import jax
import numpy as np
import numpyro

from poolwise.model.likelihoods.base import Likelihood
from poolwise.model.priors import Arrays, Priors, PriorValues
from poolwise.model.sites import Site

Families = Mapping[str, str]  # site -> family of its prior
Draws = Mapping[str, np.ndarray]  # site -> (S,), or (S, G) for rates that differ by group
Density = Callable[[Priors, Arrays, Likelihood], None]


@dataclass(frozen=True)
class RateLaw:
    """The law that the rate of a group has, given the parameters that are not rates.

    Attributes
    ----------
    family : a key of `FAMILIES`, or "Gamma" with `shape` and mean `mu`
    values : its parameters, so far as they are fixed
    drawn : parameter -> site of the posterior, for those that are not
    """

    family: str
    values: Mapping[str, jax.Array | np.ndarray]
    drawn: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class NewGroupWords:
    """A new group in words: the title of its picture, what the caption says first, a remark on where it comes from."""

    title: str
    caption: str
    source: str = ""


class Pooling(ABC):
    """How the groups' rates relate.

    Attributes
    ----------
    name, short : in configs, and in the names of runs
    sites : its parameters that take a prior
    meaning : what it takes for granted, a sentence
    formula : (HTML formula, what it says), from the rates down to what has a prior
    rate_symbol : of the rate of row i, HTML
    whose_rate : "the rate of its group"
    is_shared : whether all groups have one rate, so that `lam` is one number
    has_population : whether the rates come from a distribution that is learnt, with mean `mu` and sd `sigma`
    informs_new_group : whether the data say anything of a group that is not in them
    without_mean : names of what is derived and has no finite posterior mean
    """

    name: str
    short: str
    sites: tuple[Site, ...]
    meaning: str
    formula: tuple[tuple[str, str], ...] = ()
    rate_symbol: str = "λ<sub>g(i)</sub>"
    whose_rate: str = "the rate of its group"
    new_group_words: NewGroupWords
    is_shared = False
    has_population = False
    informs_new_group = True
    without_mean: tuple[str, ...] = ()

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

    def offered(self, likelihood: Likelihood) -> list[str]:
        """The parameterisations that can be used with a likelihood."""
        return list(self.parameterisations)

    def rate_law(self, families: Families, values: PriorValues) -> RateLaw:
        """The law of a group's rate; by default the prior of `lam`."""
        family, given = families["lam"], values["lam"]
        if family not in ("Gamma", "Exponential"):
            return RateLaw(family, given)
        shape = np.asarray(given.get("concentration", 1.0), float)
        return RateLaw("Gamma", {"shape": shape, "mu": shape / given["rate"]})

    @abstractmethod
    def new_rates(self, draws: Draws, families: Families, values: PriorValues, rng: np.random.Generator) -> np.ndarray:
        """The rate of a group that is not in the data, one for each draw of the posterior, (S,)."""

    def new_rate_moments(self, draws: Draws, rates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """E lam and E lam^2 of a new group for each draw; by default of the one rate drawn for it."""
        return rates, rates**2
