"""Log-normal laws of the rates, integrated out by quadrature."""

import jax
import jax.numpy as jnp
import numpy as np

from poolwise.model import marginal_log_normal
from poolwise.model.likelihoods.base import Likelihood, Params
from poolwise.model.mixings.base import Law, Mixing
from poolwise.model.priors import Arrays
from poolwise.model.special import LARGEST


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


LOG_NORMAL = LogNormalMixing()
