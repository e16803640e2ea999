"""Gamma laws of the rates, which likelihoods integrate out by themselves."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from poolwise.model.likelihoods.base import Likelihood, Params
from poolwise.model.mixings.base import Law, Mixing
from poolwise.model.priors import Arrays
from poolwise.model.special import exp_remainder, log_gamma_scale

QUADRATURE = 32  # nodes of a likelihood that has no closed form


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
        return QUADRATURE if likelihood.parameters else 1

    def rates_given(
        self, likelihood: Likelihood, statistics: Mapping[str, ArrayLike], law: Law
    ) -> tuple[Any, Any] | None:
        """If the likelihood is conjugate."""
        return likelihood.rates_given(statistics, law["mu"], law["shape"])


GAMMA = GammaMixing()
