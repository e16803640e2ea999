"""Zero-inflated Poisson counts: a share of the rows shows no event whatever its rate."""

import numpy as np
import numpyro.distributions as dist
from jax.typing import ArrayLike

from poolwise.model.likelihoods.base import Likelihood, Params
from poolwise.model.likelihoods.poisson import POISSON
from poolwise.model.sites import Feature, Site, Support


class ZeroInflatedPoisson(Likelihood):
    """y = 0 with probability zi, else y ~ Poisson(r): mean (1 - zi) r, variance (1 - zi) r (1 + zi r)."""

    name, short = "zero_inflated_poisson", "zip"
    sites = (Site("zi", "ζ", "share of structural zeros: rows without an event whatever their rate", Support.UNIT),)
    meaning = (
        "A count is a structural zero with probability zi, one for all groups; any other count is a Poisson count with"
        " the rate of its group, and may be zero too. Rates are those of the rows that are not structural zeros."
    )
    formula = (
        ("y<sub>i</sub> ~ ζ · 0 + (1 − ζ) · Poisson(r<sub>i</sub>)", "the count of row i: 0 with probability ζ"),
    )
    describes = (Feature.EXCESS_ZEROS,)

    def distribution(self, rate: ArrayLike, params: Params) -> dist.Distribution:
        """NumPyro's zero-inflated Poisson."""
        return dist.ZeroInflatedPoisson(params["zi"], rate)

    def below(self, count: np.ndarray, rate: np.ndarray, params: Params) -> np.ndarray:
        """The share of structural zeros, and the Poisson's share below."""
        return (count > 0) * params["zi"] + (1.0 - params["zi"]) * POISSON.below(count, rate, {})

    def sample(self, rate: np.ndarray, params: Params, rng: np.random.Generator) -> np.ndarray:
        """Poisson counts, some of them struck out."""
        is_kept = rng.random(np.shape(rate)) >= params["zi"]
        return is_kept * POISSON.sample(rate, {}, rng)

    def moments(self, rate: np.ndarray, square: np.ndarray, params: Params) -> tuple[np.ndarray, np.ndarray]:
        """The Poisson's, times the share of rows that are not structural zeros."""
        mean, mean_square = POISSON.moments(rate, square, {})
        return (1.0 - params["zi"]) * mean, (1.0 - params["zi"]) * mean_square


ZERO_INFLATED_POISSON = ZeroInflatedPoisson()
