"""A prior to the same prior, moved by NUTS in a standardised coordinate.

NUTS moves a parameter in the unconstrained coordinate of its support: the logarithm of a positive parameter, the logit
of one between two bounds. `StandardisedPrior` subtracts a centre from that coordinate and divides it by a scale. The
scale may depend on parameters sampled before. NumPyro accounts for the Jacobian, so the posterior is the same.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions.constraints import Constraint
from numpyro.distributions.transforms import AffineTransform, ComposeTransform, Transform, biject_to


class _Standardised(Constraint):  # type: ignore[misc]
    """A support with the coordinate (unconstrained coordinate - centre) / scale."""

    def __init__(self, support: Constraint, centre: jax.Array, scale: jax.Array) -> None:
        self.support, self.centre, self.scale = support, centre, scale

    def __call__(self, x: Any) -> Any:
        return self.support(x)

    def tree_flatten(self) -> tuple:
        return (self.support, self.centre, self.scale), (("support", "centre", "scale"), {})


@biject_to.register(_Standardised)  # type: ignore[untyped-decorator]
def _from_coordinate(constraint: _Standardised) -> Transform:
    return ComposeTransform([AffineTransform(constraint.centre, constraint.scale), biject_to(constraint.support)])


class StandardisedPrior(dist.Distribution):  # type: ignore[misc]
    """A prior of one number whose coordinate is about standard normal in the posterior.

    Parameters
    ----------
    prior : any with a continuous support
    near : (), positive, about where the data see the parameter; outside the support the coordinate 0 stands for it
    information : (), of the data on the logarithm of the parameter; the prior adds 1 on the unconstrained coordinate
    """

    pytree_data_fields = ("prior", "centre", "scale")

    def __init__(self, prior: dist.Distribution, near: jax.Array, information: jax.Array) -> None:
        to_support = biject_to(prior.support)
        value = jnp.where(prior.support(near), near, to_support(jnp.zeros_like(near)))
        self.prior, self.centre = prior, to_support.inv(value)
        slope = jnp.exp(to_support.log_abs_det_jacobian(self.centre, value)) / value  # of log value in the coordinate
        self.scale = 1.0 / jnp.sqrt(1.0 + slope**2 * information)
        super().__init__(prior.batch_shape, prior.event_shape)

    @property
    def support(self) -> Constraint:
        """The support of the prior, with the standardised coordinate."""
        return _Standardised(self.prior.support, self.centre, self.scale)

    def sample(self, key: jax.Array, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        """Draws of the prior."""
        return self.prior.sample(key, sample_shape)

    def log_prob(self, value: jax.Array, intermediates: Any = None) -> jax.Array:
        """Log density of the prior."""
        return self.prior.log_prob(value)
