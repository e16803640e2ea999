"""NUTS of blackjax on the density that the project's own NUTS has by default, and on as many devices."""

from collections.abc import Callable
from typing import Any

import numpy as np

from bench.samplers.base import CHAINS, DRAWS, WARMUP, Draws, Problem


def prepare(problem: Problem) -> Callable[[int], Draws]:
    """Compile window adaptation and sampling of one chain, the chains shared among devices."""
    import jax

    from poolwise.inference.devices import choose_num_devices, usable_cores

    num_devices = choose_num_devices(None, num_chains=CHAINS, platform="cpu", cores=usable_cores())
    jax.config.update("jax_num_cpu_devices", num_devices)  # before blackjax, whose import starts JAX
    jax.config.update("jax_enable_x64", True)
    import blackjax
    from numpyro.infer.util import initialize_model

    from poolwise.model.count_model import sites_of
    from poolwise.model.priors import prior_values
    from support import PRIORS, model_of

    model = model_of("hierarchical", problem.likelihood)
    values = prior_values(PRIORS, sites=sites_of("hierarchical", problem.likelihood))
    args = (model.likelihood.statistics.of(problem.counts), values)
    start = initialize_model(jax.random.key(0), model.log_joint, model_args=args)

    def log_density(position: Any) -> jax.Array:
        return -start.potential_fn(position)

    def chain(key: jax.Array) -> Any:
        keys = jax.random.split(key, 3)
        position = initialize_model(keys[0], model.log_joint, model_args=args).param_info.z
        warmup = blackjax.window_adaptation(blackjax.nuts, log_density)
        (state, tuned), _ = warmup.run(keys[1], position, num_steps=WARMUP)
        step = blackjax.nuts(log_density, **tuned).step

        def one(state: Any, key: jax.Array) -> Any:
            state, _ = step(key, state)
            return state, start.postprocess_fn(state.position)

        return jax.lax.scan(one, state, jax.random.split(keys[2], DRAWS))[1]

    chains = jax.pmap(lambda keys: jax.lax.map(chain, keys))

    def draw(seed: int) -> Draws:
        drawn = chains(jax.random.split(jax.random.key(seed), (num_devices, CHAINS // num_devices)))
        return {site: np.asarray(drawn[site]).reshape(CHAINS, DRAWS, *drawn[site].shape[3:]) for site in problem.sites}

    return draw
