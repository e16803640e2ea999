"""A seed to the random numbers of each named step, so a new step changes no other draw.

The chains of a fit have the keys `split(key(seed), num_chains)`. In JAX `split(key, n)[i] == fold_in(key, i)`, so a key
numbered by a small integer would equal the key of a chain. A hash of the step's name distinguishes the keys instead.
"""

import zlib

import jax
import numpy as np

# the steps that draw with JAX, and the numbered steps that draw with NumPy
KEYS = ("rates", "kinds", "prior", "truth", "chains")
GENERATORS = {
    **{"posterior_predictive": 1, "new_group": 2, "groups_left_out": 3, "rank_ties": 4, "prior_predictive": 5},
    **{"new_groups": 6, "funnel": 7, "proposals": 8, "rates_given": 9, "rows_left_out": 10},
    **{"kinds_given": 11, "prior_rates": 12},
}


def named_key(seed: int, step: str) -> jax.Array:
    """The key of one step that draws with JAX."""
    if step not in KEYS:  # no test would check that its key is distinct
        raise ValueError(f"{step} is not a step that draws with JAX. Use one of {', '.join(KEYS)}.")
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(step.encode()))


def named_generator(seed: int, step: str, *part: int) -> np.random.Generator:
    """The random numbers of one step that draws with NumPy, or of a numbered part of it."""
    return np.random.default_rng(_sequence(seed, step, *part))


def named_seed(seed: int, step: str, *part: int) -> int:
    """A separate seed for a numbered part of a step."""
    return int(_sequence(seed, step, *part).generate_state(1)[0])


def _sequence(seed: int, step: str, *part: int) -> np.random.SeedSequence:
    return np.random.SeedSequence(seed, spawn_key=(GENERATORS[step], *part))
