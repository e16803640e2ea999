"""Generalised Poisson counts: their variance may be below or above the mean."""

import jax
import numpy as np
import numpyro.distributions as dist
from jax.typing import ArrayLike

from poolwise.model import generalised_poisson_law as law
from poolwise.model.likelihoods.base import Likelihood, Params
from poolwise.model.priors import Arrays
from poolwise.model.sites import Feature, Site, Support


class GeneralisedPoisson(Likelihood):
    """y ~ GeneralisedPoisson(mean r, dispersion xi): variance r / (1 - xi)^2; see `model.generalised_poisson_law`.

    For xi < 0 a count y from 4 on is possible only at rates above |xi| y / (1 + |xi|), where the density vanishes. A
    chain that starts where a count is not possible starts again; half of the prior of xi makes every count possible.
    """

    name, short = "generalised_poisson", "gp"
    sites = (
        Site("xi", "ξ", "dispersion (no unit; below 0 less noise than Poisson, above 0 more)", Support.SIGNED_UNIT),
    )
    meaning = (
        "Given its rate r, a count varies less or more than a Poisson count by the same factor at any rate: its"
        " variance is r / (1 − xi)², with one xi for all groups; xi = 0 is the Poisson."
    )
    formula = (
        (
            "y<sub>i</sub> ~ GeneralisedPoisson(r<sub>i</sub>, ξ)",
            "the count of row i, with mean r and variance r / (1 − ξ)²",
        ),
    )
    cost = 60  # the sum of few possible counts is taken everywhere where rates are integrated out
    describes = (Feature.OVERDISPERSION, Feature.UNDERDISPERSION)

    def distribution(self, rate: ArrayLike, params: Params) -> dist.Distribution:
        """Consul's law, normalised; for few possible counts its mean is r to 0.5%."""
        return law.GeneralisedPoissonLaw(rate, params["xi"])

    def information(self, statistics: Arrays, lam: jax.Array, params: Params) -> jax.Array:
        """About the squared mean over the variance."""
        return super().information(statistics, lam, params) * (1.0 - params["xi"]) ** 2

    def below(self, count: np.ndarray, rate: np.ndarray, params: Params) -> np.ndarray:
        """By sums of at most 256 probabilities, and an integral for larger counts."""
        return law.below(count, rate, params["xi"])

    def sample(self, rate: np.ndarray, params: Params, rng: np.random.Generator) -> np.ndarray:
        """Descendants of founders, or by rejection."""
        return law.drawn(rate, params["xi"], rng)


GENERALISED_POISSON = GeneralisedPoisson()
