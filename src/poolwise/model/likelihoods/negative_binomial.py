"""Negative binomial counts: a Poisson with one gamma disturbance per row, per unit, or per event.

The laws of one count are the same, given its concentration; it depends on the rate r and the exposure e in three ways:

    likelihood.overdispersion   concentration   variance        the disturbance is that of
    row                         phi             r + d^2 r^2     the row, whatever its exposure (NB2)
    unit                        phi e           r + d^2 r^2/e   each unit of exposure, independently
    proportional                phi r           r (1 + d^2)     each event (NB1)

with phi = 1 / d^2. Sums of rows of one rate keep the law of a unit and of an event, but not that of a row.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.scipy.special import gammaln, xlogy
from jax.typing import ArrayLike
from scipy import special

from poolwise.counts.statistics import SUFFICIENT, SUFFICIENT_BY_UNIT
from poolwise.model import marginal
from poolwise.model.likelihoods.base import Curve, ExactCells, Likelihood, Params, over_values, remaining
from poolwise.model.likelihoods.poisson import POISSON
from poolwise.model.priors import Arrays
from poolwise.model.sites import Feature, Site
from poolwise.model.special import concentration_of, log_rising, mean_one_gamma

LARGEST_CLUSTER = 2.0**61  # of the events of a row, so that a sum is an integer
NEARLY_POISSON = 1e8  # from this concentration on the distribution function equals the Poisson's to 1e-8


class NegativeBinomial(Likelihood):
    """y ~ NegativeBinomial(mean r, a concentration that follows from phi = 1 / delta^2); delta = 0 is Poisson.

    Attributes
    ----------
    other_exposures : how the spread of a count relative to its mean changes with the exposure, in words
    """

    name, short = "negative_binomial", "nb"
    sites = (Site("delta", "δ", "overdispersion (no unit; 0 is Poisson noise)"),)
    describes = (Feature.OVERDISPERSION,)
    without_mean = ("phi",)
    other_exposures: str

    def concentration(self, rate: ArrayLike, params: Params) -> jax.Array:
        """The concentration of single counts at a rate, with the parameters `at` their exposures."""
        return params["phi"]

    def distribution(self, rate: ArrayLike, params: Params) -> dist.Distribution:
        """NumPyro's negative binomial."""
        return dist.NegativeBinomial2(rate, self.concentration(rate, params))

    def derived(self, params: Params) -> dict[str, jax.Array]:
        """The concentration phi."""
        return {"phi": concentration_of(params["delta"])}

    def log_prob(self, count: ArrayLike, rate: ArrayLike, params: Params) -> jax.Array:
        """Log probability of single counts; NumPyro's own has errors up to 7e-7."""
        phi = self.concentration(rate, params)
        spread = (count + phi) * jnp.log1p(rate / phi)
        return xlogy(count, rate) - spread + log_rising(phi, jnp.asarray(count)) - gammaln(count + 1.0)

    def log_zero(self, rate: ArrayLike, params: Params) -> jax.Array:
        """Minus phi log(1 + r / phi)."""
        phi = self.concentration(rate, params)
        return -phi * jnp.log1p(rate / phi)

    def row_information(self, rate: jax.Array, params: Params) -> jax.Array:
        """Those of a law with this concentration: r / (1 + r / phi)."""
        return rate / (1.0 + rate / self.concentration(rate, params))

    def below(self, count: np.ndarray, rate: np.ndarray, params: Params) -> np.ndarray:
        """By the incomplete beta function; 0 for a count of 0."""
        phi = self.concentration(rate, params)
        finite = np.minimum(phi, NEARLY_POISSON)
        below = special.betainc(finite, np.maximum(count, 1.0), finite / (finite + rate))
        return np.where(phi < NEARLY_POISSON, below * (count > 0), POISSON.below(count, rate, {}))

    def at_least(self, count: np.ndarray, rate: np.ndarray, params: Params) -> np.ndarray:
        """By the incomplete beta function; 1 for a count of 0."""
        phi = self.concentration(rate, params)
        finite = np.minimum(phi, NEARLY_POISSON)
        at_least = special.betainc(np.maximum(count, 1.0), finite, rate / (finite + rate))
        at_least = np.where(count > 0, at_least, 1.0)
        return np.where(phi < NEARLY_POISSON, at_least, POISSON.at_least(count, rate, {}))

    def sample_positive(self, rate: np.ndarray, params: Params, rng: np.random.Generator) -> np.ndarray:
        """The first cluster, and those after it: it is a Poisson number of clusters of logarithmic size.

        The clusters after the first are those of a share of the row: counts with that share of rate and concentration.
        """
        phi = np.broadcast_to(self.concentration(rate, params), np.shape(rate))
        log_spread = np.log1p(rate / phi)
        share = remaining(phi * log_spread, rng) / np.maximum(phi * log_spread, np.finfo(float).tiny)
        others = POISSON.sample(share * rate * mean_one_gamma(share * phi, rng), {}, rng)
        return logarithmic(log_spread, rng) + others

    def sample(self, rate: np.ndarray, params: Params, rng: np.random.Generator) -> np.ndarray:
        """A Poisson count at the rate times a gamma disturbance."""
        phi = self.concentration(rate, params)
        disturbed = rate * mean_one_gamma(np.broadcast_to(phi, np.shape(rate)), rng)
        return POISSON.sample(disturbed, {}, rng)

    def extra_spread(self, rate: float, params: Params) -> float:
        """Standard deviation beyond Poisson noise of a count, in units of its mean."""
        return float(1.0 / np.sqrt(self.concentration(rate, params)))

    def moments(self, rate: np.ndarray, square: np.ndarray, params: Params) -> tuple[np.ndarray, np.ndarray]:
        """E y = E r, E y^2 = E r + (1 + 1 / phi) E r^2."""
        return rate, square + (rate + square / params["phi"])


def logarithmic(log_spread: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draws from the logarithmic distribution with -log(1 - p) = log_spread, at most `LARGEST_CLUSTER`.

    Given U, the size is geometric with 1 - q the probability of another one, q = 1 - (1 - p)^U.

    References
    ----------
    Kemp (1981), Applied Statistics 30(3):249-253, doi:10.2307/2346348, algorithm LK.
    """
    power = log_spread * rng.random(np.shape(log_spread))
    with np.errstate(divide="ignore"):  # a probability of 0 or 1
        log_q = np.where(power < 0.7, np.log(-np.expm1(-power)), np.log1p(-np.exp(-power)))
        size = 1.0 + np.log1p(-rng.random(np.shape(log_spread))) / log_q
    return np.floor(np.minimum(size, LARGEST_CLUSTER)).astype(np.int64)


class NegativeBinomialByRow(NegativeBinomial):
    """One disturbance a row: concentration phi, variance r + (delta r)^2 for any exposure."""

    overdispersion = "row"
    meaning = (
        "Given its rate r, a count varies more than a Poisson count: its variance is r + delta² r², "
        "with one delta for all groups. The extra variation is that of a whole row, whatever its exposure."
    )
    formula = (
        ("y<sub>i</sub> ~ NegativeBinomial(r<sub>i</sub>, φ)", "the count of row i, with mean r and concentration φ"),
        ("φ = 1 / δ<sup>2</sup>", "so that the variance is r + δ² r²; phi in tables"),
    )
    other_exposures = "as it does at any exposure"
    statistics = SUFFICIENT
    exact_cells = ExactCells(20_000, 150, 150)

    def log_likelihood(self, statistics: Arrays, lam: jax.Array, params: Params) -> jax.Array:
        """By stratum, and by distinct count: see `counts.statistics.sufficient_statistics`."""
        concentration = params["phi"]
        one_each = lam.shape == statistics["stratum_group"].shape  # equal exposures: strata are the groups
        lam_t = lam if one_each else lam[statistics["stratum_group"]]  # (T,); a gather costs as much as everything else
        total, rows = statistics["stratum_total"], statistics["stratum_rows"]
        by_stratum = xlogy(total, lam_t) - (total + rows * concentration) * jnp.log1p(
            statistics["stratum_exposure"] * lam_t / concentration
        )
        return jnp.sum(by_stratum) + over_values(concentration, statistics) + statistics["constant"]

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

    def curve(self, statistics: Arrays, log_lam: jax.Array, params: Params) -> Curve:
        """By stratum, whose n rows of total S have S log lam - (S + n phi) log1p(e lam / phi)."""
        return marginal.curve(statistics, log_lam, params["phi"])

    def without_rates(self, statistics: Arrays, params: Params) -> jax.Array:
        """By distinct count."""
        return over_values(params["phi"], statistics) + statistics["constant"]


class NegativeBinomialByUnit(NegativeBinomialByRow):
    """One disturbance a unit of exposure: concentration phi e, variance r + (delta r)^2 / e.

    The units of a group are one stratum of exposure 1, so all collapsed forms are those of the law by row.
    """

    overdispersion, qualifier = "unit", "by unit"
    meaning = (
        "Given its rate r, a count varies more than a Poisson count, with one delta for all groups: every unit of"
        " exposure varies on its own with variance lam + delta² lam², so the variance of a row of exposure e is"
        " r + delta² r² / e, and large rows vary relatively less."
    )
    formula = (
        (
            "y<sub>i</sub> ~ NegativeBinomial(r<sub>i</sub>, φ e<sub>i</sub>)",
            "the count of row i, with mean r and concentration φ per unit of exposure",
        ),
        ("φ = 1 / δ<sup>2</sup>", "so that the variance is r + δ² r² / e; phi in tables"),
    )
    other_exposures = "and relatively less at larger exposures, since their units vary independently"
    statistics = SUFFICIENT_BY_UNIT
    exact_cells = ExactCells(20_000, 150, 150, is_by_unit=True)

    def at(self, params: Params, exposure: ArrayLike) -> Params:
        """The concentration of so many units."""
        return {**params, "phi": params["phi"] * exposure}


class NegativeBinomialProportional(NegativeBinomial):
    """NB1: concentration phi r, variance r (1 + delta^2), proportional to the mean."""

    overdispersion, qualifier = "proportional", "NB1"
    cost = 8
    meaning = (
        "Given its rate r, a count varies more than a Poisson count by the same factor at any rate and exposure: its"
        " variance is r (1 + delta²), with one delta for all groups (NB1)."
    )
    formula = (
        (
            "y<sub>i</sub> ~ NegativeBinomial(r<sub>i</sub>, φ r<sub>i</sub>)",
            "the count of row i, with mean r and concentration φ r",
        ),
        ("φ = 1 / δ<sup>2</sup>", "so that the variance is r (1 + δ²); phi in tables"),
    )
    other_exposures = "and relatively less at larger exposures, whose means are larger"

    def concentration(self, rate: ArrayLike, params: Params) -> jax.Array:
        """Proportional to the rate."""
        return params["phi"] * rate

    def information(self, statistics: Arrays, lam: jax.Array, params: Params) -> jax.Array:
        """About that of the mean: r / (1 + delta^2)."""
        return super().information(statistics, lam, params) / (1.0 + 1.0 / params["phi"])

    def moments(self, rate: np.ndarray, square: np.ndarray, params: Params) -> tuple[np.ndarray, np.ndarray]:
        """E y = E r, E y^2 = E r^2 + (1 + 1 / phi) E r."""
        return rate, square + (rate + rate / params["phi"])


NEGATIVE_BINOMIAL = NegativeBinomialByRow()
NEGATIVE_BINOMIAL_BY_UNIT = NegativeBinomialByUnit()
NEGATIVE_BINOMIAL_PROPORTIONAL = NegativeBinomialProportional()
