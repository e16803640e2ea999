"""Laws of the rates of groups that can be integrated out. To add one: a class and its instance in `MIXINGS`.

The parameters of a law are a mapping by name, of arrays that broadcast: fixed, drawn, or traced.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from poolwise.model import marginal, marginal_log_normal
from poolwise.model.likelihoods.base import Likelihood, Params
from poolwise.model.priors import Arrays
from poolwise.model.special import LARGEST, exp_remainder, log_gamma_scale

Law = Mapping[str, Any]


class Mixing(ABC):
    """A family of laws of a rate.

    Attributes
    ----------
    family : its name in a `RateLaw`
    parameters : their names
    """

    family: str
    parameters: tuple[str, ...]

    @abstractmethod
    def integrates(self, likelihood: Likelihood) -> bool:
        """Whether the rates of counts of this likelihood can be integrated out."""

    @abstractmethod
    def log_marginal(self, likelihood: Likelihood, statistics: Arrays, law: Law, params: Params) -> jax.Array:
        """Log probability of all rows, (), with the rates integrated out."""

    @abstractmethod
    def draw_rates(
        self, key: jax.Array, likelihood: Likelihood, statistics: Arrays, law: Law, params: Params
    ) -> jax.Array:
        """Independent draws of the rates, (G,), given the counts and everything else."""

    @abstractmethod
    def log_density(self, law: Law, log_rate: jax.Array) -> jax.Array:
        """Log density of the logarithm of a rate."""

    @abstractmethod
    def sample(self, law: Law, size: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """Rates without counts, by NumPy."""

    @abstractmethod
    def nodes(self, likelihood: Likelihood) -> int:
        """Approximate number of densities of a group or stratum per value of `log_marginal`."""

    def rates_given(
        self, likelihood: Likelihood, statistics: Mapping[str, ArrayLike], law: Law
    ) -> tuple[Any, Any] | None:
        """Shape and rate of the gamma law of each rate given its counts; None if that is not a gamma law."""
        return None


class GammaMixing(Mixing):
    """Gamma with mean mu, in closed form or by the quadrature of the likelihood."""

    family, parameters = "Gamma", ("mu", "shape")

    def integrates(self, likelihood: Likelihood) -> bool:
        """If the likelihood does it."""
        return likelihood.has_marginal

    def log_marginal(self, likelihood: Likelihood, statistics: Arrays, law: Law, params: Params) -> jax.Array:
        """The likelihood's own."""
        return likelihood.log_marginal(statistics, law["mu"], law["shape"], params)

    def draw_rates(
        self, key: jax.Array, likelihood: Likelihood, statistics: Arrays, law: Law, params: Params
    ) -> jax.Array:
        """The likelihood's own."""
        return likelihood.draw_rates(key, statistics, law["mu"], law["shape"], params)

    def log_density(self, law: Law, log_rate: jax.Array) -> jax.Array:
        """Without the cancellation of a large shape."""
        shape, log_mu = law["shape"], jnp.log(law["mu"])
        return log_gamma_scale(shape) - shape * exp_remainder(log_rate - log_mu)

    def sample(self, law: Law, size: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """NumPy's gamma."""
        return rng.standard_gamma(law["shape"], size) * (law["mu"] / law["shape"])

    def nodes(self, likelihood: Likelihood) -> int:
        """One if nothing but the rates is uncertain, which is the Poisson's closed form."""
        return marginal.NODES if likelihood.parameters else 1

    def rates_given(
        self, likelihood: Likelihood, statistics: Mapping[str, ArrayLike], law: Law
    ) -> tuple[Any, Any] | None:
        """If the likelihood is conjugate."""
        return likelihood.rates_given(statistics, law["mu"], law["shape"])


class LogNormalMixing(Mixing):
    """Log rates with mean `loc` and standard deviation `scale`, by quadrature over the log rate of each group."""

    family, parameters = "LogNormal", ("loc", "scale")

    def integrates(self, likelihood: Likelihood) -> bool:
        """If the log likelihood is known to be concave in log rates."""
        return likelihood.has_curve

    def log_marginal(self, likelihood: Likelihood, statistics: Arrays, law: Law, params: Params) -> jax.Array:
        """By quadrature."""
        return marginal_log_normal.log_marginal(likelihood, statistics, law["loc"], law["scale"], params)

    def draw_rates(
        self, key: jax.Array, likelihood: Likelihood, statistics: Arrays, law: Law, params: Params
    ) -> jax.Array:
        """By rejection."""
        return marginal_log_normal.draw_rates(key, likelihood, statistics, law["loc"], law["scale"], params)

    def log_density(self, law: Law, log_rate: jax.Array) -> jax.Array:
        """Normal."""
        scale = jnp.maximum(law["scale"], LARGEST**-0.5)
        return -0.5 * ((log_rate - law["loc"]) / scale) ** 2 - jnp.log(scale) - 0.5 * np.log(2.0 * np.pi)

    def sample(self, law: Law, size: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """NumPy's normal."""
        return np.exp(law["loc"] + law["scale"] * rng.standard_normal(size))

    def nodes(self, likelihood: Likelihood) -> int:
        """Those of the quadrature."""
        return marginal_log_normal.NODES


GAMMA, LOG_NORMAL = GammaMixing(), LogNormalMixing()
MIXINGS: dict[str, Mixing] = {each.family: each for each in (GAMMA, LOG_NORMAL)}
