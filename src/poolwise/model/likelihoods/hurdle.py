"""Hurdle counts: a share of the rows has no event; the others have at least one, and follow a base likelihood.

    P(0) = h      P(y) = (1 - h) P_base(y) / (1 - P_base(0)) for y > 0

So zeros tell h alone, and the counts of the other rows tell the rates. As a rate goes to 0, its positive counts become
ones: neither the moments nor the probability of a 1 vanish. That limit is reached at the least rate of `above_zero`.
"""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.typing import ArrayLike
from numpyro.distributions import constraints

from poolwise.model.likelihoods.base import Likelihood, Params
from poolwise.model.likelihoods.zeros_apart import ZerosApart
from poolwise.model.priors import Arrays
from poolwise.model.sites import Site, Support
from poolwise.model.special import above_zero


class Hurdle(ZerosApart):
    """y = 0 with probability h, else y follows the base given that it is positive."""

    name, short = "hurdle", "h"
    zeros_site = "hurdle"
    least_telling = 2
    sites: tuple[Site, ...] = (Site("hurdle", "h", "share of rows without an event", Support.UNIT),)
    meaning = (
        "A row has no event with probability hurdle, one for all groups and whatever its rate. Any other row has at"
        " least one; its count has the law below, given that it is not zero."
    )
    rates_are = "Rates are those of the law before its zeros are left out: below the mean of the positive counts."
    formula: tuple[tuple[str, str], ...] = (
        (
            "y<sub>i</sub> ~ h · 0 + (1 − h) · [{law} given y<sub>i</sub> &gt; 0]",
            "the count of row i: 0 with probability h, else the law given that it is positive",
        ),
    )

    def __init__(self, base: Likelihood):
        super().__init__(base)
        self.as_heavy_as_prior = tuple(site.name for site in base.sites)

    def distribution(self, rate: ArrayLike, params: Params) -> dist.Distribution:
        """The law of this likelihood."""
        return HurdleCount(rate, params, likelihood=self)

    def log_prob(self, count: ArrayLike, rate: ArrayLike, params: Params) -> jax.Array:
        """Log probability of single counts.

        Only the branch of a count has its values: the other is at a count and a rate of 1, with a finite gradient.
        """
        is_zero = jnp.asarray(count) == 0
        rate = jnp.where(is_zero, 1.0, above_zero(rate))
        log_positive = jnp.log(-jnp.expm1(-above_zero(-self.base.log_zero(rate, params))))
        other = self.base.log_prob(jnp.where(is_zero, 1.0, count), rate, params) - log_positive
        return jnp.where(is_zero, jnp.log(params["hurdle"]), jnp.log1p(-params["hurdle"]) + other)

    def information(self, statistics: Arrays, lam: jax.Array, params: Params) -> jax.Array:
        """About that of the base in the rows with an event."""
        return (1.0 - params["hurdle"]) * self.base.information_by_cell(statistics, lam, params)

    def below(self, count: np.ndarray, rate: np.ndarray, params: Params) -> np.ndarray:
        """The share of zeros, and that of positive counts below: by the smaller one of the base's two tails."""
        rate, hurdle = np.asarray(above_zero(rate)), params["hurdle"]
        zero, positive = (tail(np.ones(()), rate, params) for tail in (self.base.below, self.base.at_least))
        lower = (self.base.below(count, rate, params) - zero) / positive
        upper = self.base.at_least(count, rate, params) / positive
        among = np.clip(np.where(zero < 0.5, lower, 1.0 - upper), 0.0, 1.0)
        return (count > 0) * (hurdle + (1.0 - hurdle) * np.where(count > 1, among, 0.0))

    def sample(self, rate: np.ndarray, params: Params, rng: np.random.Generator) -> np.ndarray:
        """Positive counts of the base, some of them replaced by 0."""
        is_kept = rng.random(np.shape(rate)) >= params["hurdle"]
        return is_kept * self.base.sample_positive(np.asarray(above_zero(rate)), params, rng)

    def moments_at(self, rate: np.ndarray, params: Params) -> tuple[np.ndarray, np.ndarray]:
        """The base's, over its share of positive counts."""
        rate = np.asarray(above_zero(rate))
        mean, square = self.base.moments(rate, rate**2, params) or self.base.moments_at(rate, params)
        share = (1.0 - params["hurdle"]) / self.base.at_least(np.ones(()), rate, params)
        return share * mean, share * square


class HurdleCount(dist.Distribution):  # type: ignore[misc]
    """The law of a hurdle count, from the functions of its likelihood.

    NumPyro's `HurdleProbs` takes P(y > 0) of its negative binomial from a log P(0) with an absolute error up to 1e-7
    (for concentrations up to 1e8; beyond, of the order of the rate), so the law of small rates is lost; and it draws by
    rejection, which does not end at small rates.
    """

    support = constraints.nonnegative_integer
    arg_constraints: ClassVar = {"rate": constraints.nonnegative}
    pytree_data_fields = ("rate", "params")
    pytree_aux_fields = ("likelihood",)

    def __init__(self, rate: ArrayLike, params: Params, *, likelihood: Hurdle, validate_args: bool | None = None):
        shape = jax.lax.broadcast_shapes(jnp.shape(rate), *(jnp.shape(value) for value in params.values()))
        self.rate, self.params, self.likelihood = jnp.broadcast_to(rate, shape), params, likelihood
        super().__init__(batch_shape=shape, validate_args=validate_args)

    def log_prob(self, value: ArrayLike) -> jax.Array:
        """That of the likelihood."""
        return self.likelihood.log_prob(value, self.rate, self.params)

    def sample(self, key: jax.Array, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        """Counts drawn by NumPy, which may be traced: the key gives the seed."""
        like = jax.ShapeDtypeStruct((*sample_shape, *self.batch_shape), jnp.result_type(int))

        def drawn(seed: jax.Array, rate: jax.Array, params: Params) -> np.ndarray:
            rates, params = np.broadcast_to(rate, like.shape), {name: np.asarray(x) for name, x in params.items()}
            return self.likelihood.sample(rates, params, np.random.default_rng(np.asarray(seed))).astype(like.dtype)

        seed = jax.random.bits(key, (4,))
        return jax.pure_callback(drawn, like, seed, self.rate, self.params, vmap_method="sequential")

    @property
    def mean(self) -> np.ndarray:
        """That of the likelihood."""
        return self.likelihood.moments_at(np.asarray(self.rate), self.params)[0]

    @property
    def variance(self) -> np.ndarray:
        """That of the likelihood."""
        mean, square = self.likelihood.moments_at(np.asarray(self.rate), self.params)
        return square - mean**2
