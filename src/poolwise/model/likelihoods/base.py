"""The interface of a likelihood: the law of one count given its rate, and optional closed forms.

An instance must give its name, sites, distribution and texts. Everything else has a default that works for any NumPyro
distribution at a cost per cell; an instance overrides what it has in closed form. Parameters are passed as a mapping:
the sites (`delta`) and the values derived from them (`phi`).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

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
    """Most cells for which an exact answer takes seconds.

    Attributes
    ----------
    by_group : with a prior on each rate
    by_population : with a gamma population of rates
    by_quadrature : with any other population
    is_by_unit : whether the concentration of a count is 1 / delta^2 for each unit of its exposure, not for the row
    """

    by_group: int
    by_population: int
    by_quadrature: int
    is_by_unit: bool = False


class Curve(NamedTuple):
    """The log likelihood of each group as a concave function of its log rate, each (G, n)."""

    height: jax.Array  # without `Likelihood.without_rates`
    slope: jax.Array
    bend: jax.Array  # the negative second derivative


def over_values(concentration: jax.Array, statistics: Arrays) -> jax.Array:
    """The sum over all rows of `log_rising(concentration of the row, count)`, for one concentration a unit or a row."""
    units = statistics.get("value_exposure")  # of rows whose concentration is that of their units
    of_row = concentration if units is None else concentration * units
    return jnp.sum(statistics["value_rows"] * log_rising(of_row, statistics["value"]))


def over_groups(by_group: jax.Array, statistics: Arrays) -> jax.Array:
    """The sum over all groups of terms (G,) or, if one group stands for all that are alike, of terms (K,)."""
    return jnp.sum(by_group * statistics["groups_alike"] if "groups_alike" in statistics else by_group)


def of_positive(statistics: Arrays) -> dict[str, jax.Array]:
    """`CELLS` with totals and exposures of the groups' rows with an event; all rows if no row has one.

    The mean m of positive Poisson counts is r / (1 - exp(-r)). Their total is reduced to about r a row, with
    r = m (1 - exp(-r)) inserted twice from r = m.
    """
    group, total = statistics["cell_group"], statistics["group_total"]
    rows = statistics["cell_rows"] * (statistics["cell_count"] > 0)
    number, exposure = (jnp.zeros_like(total).at[group].add(rows * x) for x in (1.0, statistics["cell_exposure"]))
    mean = total / jnp.maximum(number, 1.0)
    count = mean
    for _ in range(2):
        count = mean * -jnp.expm1(-count)
    exposure = jnp.where(jnp.any(number > 0), exposure, statistics["group_exposure"])
    return {**statistics, "group_total": count * number, "group_exposure": exposure}


def units_of(statistics: Arrays) -> jax.Array:
    """The exposures of the rows of each cell, (C,), without the effects of covariates."""
    return statistics.get("cell_units", statistics["cell_exposure"])


def remaining(arrivals: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Expected arrivals of a Poisson process of so many in (0, 1) after its first one, given that there is one.

    The first arrival t is exponential and truncated to (0, 1), so the rest of the interval has arrivals * (1 - t).
    """
    return np.maximum(arrivals + np.log1p(rng.random(np.shape(arrivals)) * np.expm1(-arrivals)), 0.0)


def short_of(base: "Likelihood") -> str:
    """The initials of its name."""
    return "".join(word[0] for word in base.name.split("_"))


class Likelihood(ABC):
    """The law of a count given its rate r, exposure times lam.

    Attributes
    ----------
    name, short : in configs, and in the names of runs
    overdispersion : the choice of `likelihood.overdispersion` among likelihoods of one name; None if there is no choice
    qualifier : what follows its name in sentences, if its choice is not the default
    made_of : the likelihoods that it changes
    sites : its parameters that take a prior
    meaning : its assumption, one sentence
    rates_are : whose a rate is, if it is not the expected count of a row: a sentence; empty otherwise
    formula : (HTML formula, its meaning), from the count down
    statistics : the kind of statistics that `log_likelihood` needs
    cost : about, of the probability of a count and its slope, in those of a Poisson count
    describes : the features of counts that it describes beyond the Poisson's
    without_mean : names of derived values without a finite posterior mean
    as_heavy_as_prior : sites whose posterior has the tail of their prior, whatever the counts
    least_telling : the least count with a probability that vanishes with the rate
    zeros_site : of its sites, the one that gives zeros a probability of their own; None if they follow from the rate
    exact_cells : most cells for which the exact answer takes seconds; None if `checks.exact` has none: it supports the
        Poisson and the negative binomial with dispersion `delta`
    """

    name: str
    short: str
    overdispersion: str | None = None
    qualifier: str = ""
    made_of: "tuple[Likelihood, ...]" = ()
    sites: tuple[Site, ...] = ()
    meaning: str
    rates_are: str = ""
    formula: tuple[tuple[str, str], ...]
    statistics: Statistics = CELLS
    cost: int = 1
    describes: tuple[Feature, ...] = ()
    without_mean: tuple[str, ...] = ()
    as_heavy_as_prior: tuple[str, ...] = ()
    least_telling: int = 1
    zeros_site: str | None = None
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
    def has_curve(self) -> bool:
        """Whether rates with a log-normal law can be integrated out: it overrides `curve` and `without_rates`."""
        return type(self).curve is not Likelihood.curve

    @property
    def has_marginal(self) -> bool:
        """Whether rates with a gamma law can be integrated out: it overrides `log_marginal` and `draw_rates`."""
        return type(self).log_marginal is not Likelihood.log_marginal

    @property
    def title(self) -> str:
        """Its name in sentences."""
        return f"{self.name.replace('_', ' ')} {self.qualifier}".strip()

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

    def formula_within(self, outer: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
        """The formula of a likelihood made of this one, from one with `{law}` in place of its law of a count."""
        law = self.formula[0][0].split(" ~ ", 1)[1]
        return (*((formula.format(law=law), words) for formula, words in outer), *self.formula[1:])

    # Densities, with JAX.

    def log_prob(self, count: ArrayLike, rate: ArrayLike, params: Params) -> jax.Array:
        """Log probability of single counts; arguments broadcast."""
        return self.distribution(rate, params).log_prob(count)

    def log_zero(self, rate: ArrayLike, params: Params) -> jax.Array:
        """Log P(Y = 0), to full relative precision: a likelihood made of this one needs 1 - P(Y = 0)."""
        return self.log_prob(0.0, rate, params)

    def log_likelihood(self, statistics: Arrays, lam: jax.Array, params: Params) -> jax.Array:
        """Log probability of all rows, (), at rates lam (G,) per unit of exposure."""
        rate = statistics["cell_exposure"] * lam[statistics["cell_group"]]  # (C,)
        params = self.at(params, units_of(statistics))
        rows, log_prob = statistics["cell_rows"], self.log_prob(statistics["cell_count"], rate, params)
        return jnp.sum(jnp.where(rows > 0, rows * log_prob, 0.0))  # no row, no matter how impossible its count is

    def information(self, statistics: Arrays, lam: jax.Array, params: Params) -> jax.Array:
        """Fisher information of the counts of each group on log lam, (G,).

        It only places mu and z in the standardised parameterisation, so any positive value is valid. The default is the
        Poisson's.
        """
        return statistics["group_exposure"] * lam

    def row_information(self, rate: jax.Array, params: Params) -> jax.Array:
        """Fisher information of single counts on log r; by default the Poisson's."""
        return rate

    def information_by_cell(self, statistics: Arrays, lam: jax.Array, params: Params) -> jax.Array:
        """`information` from the statistics `CELLS`."""
        group, exposure = statistics["cell_group"], statistics["cell_exposure"]
        of_rows = self.row_information(exposure * lam[group], self.at(params, units_of(statistics)))  # (C,)
        return jnp.zeros_like(lam).at[group].add(statistics["cell_rows"] * of_rows)

    def showing_rates(self, statistics: Arrays) -> Arrays:
        """The statistics with the totals and exposures of the groups that show their rates; by default of all rows.

        Like `information`, they only place mu and z, and the first point of a chain.
        """
        return statistics

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

    def curve(self, statistics: Arrays, log_lam: jax.Array, params: Params) -> Curve:
        """The log likelihood of the rows of each group at log rates (G, n); only where it is concave."""
        raise NotImplementedError(f"the rates of {self.name} cannot be integrated out")

    def without_rates(self, statistics: Arrays, params: Params) -> jax.Array:
        """The terms of the log likelihood of all rows that depend on no rate, (): what `curve` omits."""
        raise NotImplementedError(f"the rates of {self.name} cannot be integrated out")

    # Predictions, with NumPy.

    def below(self, count: np.ndarray, rate: np.ndarray, params: Params) -> np.ndarray:
        """P(Y < count); by default the sum of the probabilities of all smaller counts."""
        count = np.asarray(count)
        total = np.zeros(np.broadcast_shapes(count.shape, np.shape(rate), *(np.shape(x) for x in params.values())))
        for smaller in range(int(count.max(initial=0))):
            total += np.where(count > smaller, np.exp(self.log_prob(float(smaller), rate, params)), 0.0)
        return np.minimum(total, 1.0)

    def at_least(self, count: np.ndarray, rate: np.ndarray, params: Params) -> np.ndarray:
        """P(Y >= count); to full relative precision in a likelihood that a hurdle is made of."""
        return 1.0 - self.below(count, rate, params)

    def sample_positive(self, rate: np.ndarray, params: Params, rng: np.random.Generator) -> np.ndarray:
        """One count for each rate, given that it is positive."""
        raise NotImplementedError(f"positive counts of {self.name} cannot be drawn")

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
