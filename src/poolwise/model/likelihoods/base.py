"""The interface of a likelihood: the law of one count given its rate, and optional closed forms.

An instance must give its name, sites, distribution and texts. Everything else has a default that works for any NumPyro
distribution at a cost per cell; an instance overrides what it has in closed form. Parameters are passed as a mapping:
the sites (`delta`) and the values derived from them (`phi`).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.typing import ArrayLike

from poolwise.counts.statistics import CELLS, Statistics
from poolwise.model.priors import Arrays, Priors
from poolwise.model.sites import Feature, Site
from poolwise.model.special import log_rising

Params = Mapping[str, Any]


@dataclass(frozen=True)
class ExactCells:
    """Most cells for which an exact answer takes seconds: with a prior on each rate, and with a population of rates."""

    by_group: int
    by_population: int


def over_values(concentration: jax.Array, statistics: Arrays) -> jax.Array:
    """The sum over all rows of `log_rising(concentration of the row, count)`, for one concentration a unit or a row."""
    units = statistics.get("value_exposure")  # of rows whose concentration is that of their units
    of_row = concentration if units is None else concentration * units
    return jnp.sum(statistics["value_rows"] * log_rising(of_row, statistics["value"]))


def over_groups(by_group: jax.Array, statistics: Arrays) -> jax.Array:
    """The sum over all groups of terms (G,) or, if one group stands for all that are alike, of terms (K,)."""
    return jnp.sum(by_group * statistics["groups_alike"] if "groups_alike" in statistics else by_group)


class Likelihood(ABC):
    """The law of a count given its rate r, exposure times lam.

    Attributes
    ----------
    name, short : in configs, and in the names of runs
    overdispersion : the choice of `likelihood.overdispersion` among likelihoods of one name; None if there is no choice
    made_of : the likelihoods that it changes
    sites : its parameters that take a prior
    meaning : its assumption, one sentence
    formula : (HTML formula, its meaning), from the count down
    statistics : the kind of statistics that `log_likelihood` needs
    describes : the features of counts that it describes beyond the Poisson's
    without_mean : names of derived values without a finite posterior mean
    exact_cells : most cells for which the exact answer takes seconds; None if `checks.exact` has none: it supports the
        Poisson and the negative binomial with dispersion `delta`
    """

    name: str
    short: str
    overdispersion: str | None = None
    made_of: "tuple[Likelihood, ...]" = ()
    sites: tuple[Site, ...] = ()
    meaning: str
    formula: tuple[tuple[str, str], ...]
    statistics: Statistics = CELLS
    describes: tuple[Feature, ...] = ()
    without_mean: tuple[str, ...] = ()
    exact_cells: ExactCells | None = None

    @abstractmethod
    def distribution(self, rate: ArrayLike, params: Params) -> dist.Distribution:
        """The law of one count; arguments broadcast."""

    def derived(self, params: Params) -> dict[str, jax.Array]:
        """Values derived from the sites and stored with them."""
        return {}

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """Names of the sites and of the derived values."""
        shapes = {site.name: jax.ShapeDtypeStruct((), jnp.result_type(float)) for site in self.sites}
        return (*shapes, *jax.eval_shape(self.derived, shapes))

    @property
    def has_marginal(self) -> bool:
        """Whether rates with a gamma law can be integrated out: it overrides `log_marginal` and `draw_rates`."""
        return type(self).log_marginal is not Likelihood.log_marginal

    def sample_params(self, prior: Priors) -> Params:
        """The parameters, inside a NumPyro model and outside every plate: one of each for all groups."""
        sampled = {site.name: numpyro.sample(site.name, prior[site.name]) for site in self.sites}
        return sampled | {name: numpyro.deterministic(name, x) for name, x in self.derived(sampled).items()}

    def params_of(self, draws: Mapping[str, Any]) -> Params:
        """Its parameters, selected from draws by name."""
        return {name: draws[name] for name in self.parameters}

    def at(self, params: Params, exposure: ArrayLike) -> Params:
        """Its parameters for rows of an exposure, as the functions of single counts take them; arguments broadcast."""
        return params

    # Densities, with JAX.

    def log_prob(self, count: ArrayLike, rate: ArrayLike, params: Params) -> jax.Array:
        """Log probability of single counts; arguments broadcast."""
        return self.distribution(rate, params).log_prob(count)

    def log_likelihood(self, statistics: Arrays, lam: jax.Array, params: Params) -> jax.Array:
        """Log probability of all rows, (), at rates lam (G,) per unit of exposure."""
        rate = statistics["cell_exposure"] * lam[statistics["cell_group"]]  # (C,)
        params = self.at(params, statistics["cell_exposure"])
        rows, log_prob = statistics["cell_rows"], self.log_prob(statistics["cell_count"], rate, params)
        return jnp.sum(jnp.where(rows > 0, rows * log_prob, 0.0))  # no row, no matter how impossible its count is

    def information(self, statistics: Arrays, lam: jax.Array, params: Params) -> jax.Array:
        """Fisher information of the counts of each group on log lam, (G,).

        It only places mu and z in the standardised parameterisation, so any positive value is valid. The default is the
        Poisson's.
        """
        return statistics["group_exposure"] * lam

    def log_marginal(self, statistics: Arrays, mu: jax.Array, shape: jax.Array, params: Params) -> jax.Array:
        """Log probability of all rows, (), with the rates integrated out under Gamma(shape, mean mu)."""
        raise NotImplementedError(f"the rates of {self.name} cannot be integrated out")

    def draw_rates(
        self, key: jax.Array, statistics: Arrays, mu: jax.Array, shape: jax.Array, params: Params
    ) -> jax.Array:
        """Independent draws of the rates, (G,), given the counts and everything else."""
        raise NotImplementedError(f"the rates of {self.name} cannot be integrated out")

    def rates_given(self, statistics: Mapping[str, Any], mu: ArrayLike, shape: ArrayLike) -> tuple[Any, Any] | None:
        """Shape and rate of the gamma law of each rate given its counts and its Gamma(shape, mean mu), (..., G).

        None if that is not a gamma law; `mu` and `shape` broadcast against (G,), in NumPy or JAX.
        """
        return None

    # Predictions, with NumPy.

    def below(self, count: np.ndarray, rate: np.ndarray, params: Params) -> np.ndarray:
        """P(Y < count); by default the sum of the probabilities of all smaller counts."""
        count = np.asarray(count)
        total = np.zeros(np.broadcast_shapes(count.shape, np.shape(rate), *(np.shape(x) for x in params.values())))
        for smaller in range(int(count.max(initial=0))):
            total += np.where(count > smaller, np.exp(self.log_prob(float(smaller), rate, params)), 0.0)
        return np.minimum(total, 1.0)

    def sample(self, rate: np.ndarray, params: Params, rng: np.random.Generator) -> np.ndarray:
        """One count for each rate."""
        key = jax.random.key(rng.integers(2**32))
        return np.asarray(self.distribution(rate, params).sample(key)).astype(np.int64)

    def moments(self, rate: np.ndarray, square: np.ndarray, params: Params) -> tuple[np.ndarray, np.ndarray] | None:
        """E y and E y^2 from E r and E r^2, if they depend on nothing else; otherwise None."""
        return None

    def moments_at(self, rate: np.ndarray, params: Params) -> tuple[np.ndarray, np.ndarray]:
        """E y and E y^2 at single rates."""
        law = self.distribution(rate, params)
        mean = np.asarray(law.mean)
        return mean, np.asarray(law.variance) + mean**2
