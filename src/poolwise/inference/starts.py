"""A chain's key and index to its starting point: chains start far apart, so that R-hat can see separate modes.

Chains 0, 2, 4, ... start near the data: the rates, their mean and spread as the groups show them, times a random factor
each. Chains 1, 3, 5, ... start from the prior: each parameter is the median of three draws, which stays within the bulk
of a heavy-tailed prior. Parameters of the likelihood start from the prior in all chains. A point without a finite
density is drawn again, up to 100 times.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from numpyro.infer import NUTS, init_to_median
from numpyro.infer.hmc import HMCState
from numpyro.infer.util import initialize_model

from poolwise.model.count_model import Model
from poolwise.model.priors import Arrays

SPREAD = 0.5  # sd of the logarithm of the random factor: 95% between 0.38 and 2.7
DRAWS = 3  # from the prior; their median is between the quantiles 0.09 and 0.91 in 95%


def started(kernel: NUTS, model: Model, key: jax.Array, chain: jax.Array, args: Any, *, num_warmup: int) -> HMCState:
    """The first state of one chain.

    Parameters
    ----------
    chain : (), its index
    args : of `model.log_joint`
    """
    key, key_start = jax.random.split(key)
    shown = model.pooling.shown_by(model.likelihood.showing_rates(args[0]))
    strategy = partial(_spread_out, is_near_data=chain % 2 == 0, shown=shown)
    found = initialize_model(key_start, model.log_joint, init_strategy=strategy, dynamic_args=True, model_args=args)
    return kernel.init(key, num_warmup, found.param_info, args, {})


def _spread_out(site: dict[str, Any], *, is_near_data: jax.Array, shown: Arrays) -> jax.Array | None:
    """Value of a site, as NumPyro's initialization strategies give it."""
    from_prior = init_to_median(site, num_samples=DRAWS)
    if from_prior is None or site["name"] not in shown:
        return from_prior
    noise = jax.random.normal(site["kwargs"]["rng_key"], jnp.shape(from_prior))
    return jnp.where(is_near_data, shown[site["name"]] * jnp.exp(SPREAD * noise), from_prior)
