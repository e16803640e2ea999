"""Negative binomial counts: a Poisson with one gamma disturbance per row."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.scipy.special import gammaln, xlogy
from jax.typing import ArrayLike
from scipy import special

from poolwise.counts.statistics import SUFFICIENT
from poolwise.model import marginal
from poolwise.model.likelihoods.base import ExactCells, Likelihood, Params
from poolwise.model.likelihoods.poisson import POISSON
from poolwise.model.priors import Arrays
from poolwise.model.sites import Feature, Site
from poolwise.model.special import concentration_of, log_rising, mean_one_gamma

NEARLY_POISSON = 1e8  # from this concentration on the distribution function equals the Poisson's to 1e-8


class NegativeBinomial(Likelihood):
    """y ~ NegativeBinomial(mean r, concentration phi = 1 / delta^2): variance r + (delta r)^2; delta = 0 is Poisson."""

    name, short = "negative_binomial", "nb"
    sites = (Site("delta", "δ", "overdispersion (no unit; 0 is Poisson noise)"),)
    meaning = (
        "Given its rate r, a count varies more than a Poisson count: its variance is r + delta² r², "
        "with one delta for all groups."
    )
    formula = (
        ("y<sub>i</sub> ~ NegativeBinomial(r<sub>i</sub>, φ)", "the count of row i, with mean r and concentration φ"),
        ("φ = 1 / δ<sup>2</sup>", "so that the variance is r + δ² r²; phi in tables"),
    )
    statistics = SUFFICIENT
    describes = (Feature.OVERDISPERSION,)
    without_mean = ("phi",)
    exact_cells = ExactCells(20_000, 150)

    def distribution(self, rate: ArrayLike, params: Params) -> dist.Distribution:
        """NegativeBinomial2(r, phi)."""
        return dist.NegativeBinomial2(rate, params["phi"])

    def derived(self, params: Params) -> dict[str, jax.Array]:
        """The concentration phi."""
        return {"phi": concentration_of(params["delta"])}

    def log_prob(self, count: ArrayLike, rate: ArrayLike, params: Params) -> jax.Array:
        """Log probability of single counts; NumPyro's own has errors up to 7e-7."""
        spread = (count + params["phi"]) * jnp.log1p(rate / params["phi"])
        return xlogy(count, rate) - spread + log_rising(params["phi"], jnp.asarray(count)) - gammaln(count + 1.0)

    def log_likelihood(self, statistics: Arrays, lam: jax.Array, params: Params) -> jax.Array:
        """By stratum, and by distinct count: see `counts.statistics.sufficient_statistics`."""
        concentration = params["phi"]
        one_each = lam.shape == statistics["stratum_group"].shape  # equal exposures: strata are the groups
        lam_t = lam if one_each else lam[statistics["stratum_group"]]  # (T,); a gather costs as much as everything else
        total, rows = statistics["stratum_total"], statistics["stratum_rows"]
        by_stratum = xlogy(total, lam_t) - (total + rows * concentration) * jnp.log1p(
            statistics["stratum_exposure"] * lam_t / concentration
        )
        by_value = statistics["value_rows"] * log_rising(concentration, statistics["value"])  # (K,)
        return jnp.sum(by_stratum) + jnp.sum(by_value) + statistics["constant"]

    def information(self, statistics: Arrays, lam: jax.Array, params: Params) -> jax.Array:
        """By stratum: n r / (1 + r / phi)."""
        one_each = lam.shape == statistics["stratum_group"].shape
        mean = statistics["stratum_exposure"] * (lam if one_each else lam[statistics["stratum_group"]])  # (T,)
        by_stratum = statistics["stratum_rows"] * mean / (1.0 + mean / params["phi"])
        return by_stratum if one_each else jnp.zeros_like(lam).at[statistics["stratum_group"]].add(by_stratum)

    def log_marginal(self, statistics: Arrays, mu: jax.Array, shape: jax.Array, params: Params) -> jax.Array:
        """By quadrature over each rate."""
        return marginal.log_marginal(statistics, mu, shape, params["phi"])

    def draw_rates(
        self, key: jax.Array, statistics: Arrays, mu: jax.Array, shape: jax.Array, params: Params
    ) -> jax.Array:
        """By rejection."""
        return marginal.draw_rates(key, statistics, mu, shape, params["phi"])

    def below(self, count: np.ndarray, rate: np.ndarray, params: Params) -> np.ndarray:
        """By the incomplete beta function; 0 for a count of 0."""
        phi = params["phi"]
        finite = np.minimum(phi, NEARLY_POISSON)
        below = special.betainc(finite, np.maximum(count, 1.0), finite / (finite + rate))
        return np.where(phi < NEARLY_POISSON, below * (count > 0), POISSON.below(count, rate, {}))

    def sample(self, rate: np.ndarray, params: Params, rng: np.random.Generator) -> np.ndarray:
        """A Poisson count at the rate times a gamma disturbance."""
        disturbed = rate * mean_one_gamma(np.broadcast_to(params["phi"], np.shape(rate)), rng)
        return POISSON.sample(disturbed, {}, rng)

    def moments(self, rate: np.ndarray, square: np.ndarray, params: Params) -> tuple[np.ndarray, np.ndarray]:
        """E y = E r, E y^2 = E r + (1 + 1 / phi) E r^2."""
        return rate, square + (rate + square / params["phi"])


NEGATIVE_BINOMIAL = NegativeBinomial()
