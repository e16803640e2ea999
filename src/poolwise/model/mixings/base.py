"""The interface of a mixing: a family of laws of the rates of groups that can be integrated out.

The parameters of a law are a mapping by name, of arrays that broadcast: fixed, drawn, or traced.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from poolwise.model.likelihoods.base import Likelihood, Params
from poolwise.model.priors import Arrays

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
