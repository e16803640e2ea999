"""A seed to the random numbers of each named step, so that a new step moves no other draw.

The chains of a fit have the keys `split(key(seed), num_chains)`. In JAX `split(key, n)[i] == fold_in(key, i)`, so a key
numbered by a small integer would be that of a chain: keys are told apart by a hash of the step's name instead.
"""

import zlib

import jax
import numpy as np

# the steps that draw with JAX, and those that draw with NumPy, which are numbered
KEYS = ("rates", "prior", "truth", "chains")
GENERATORS = {"posterior_predictive": 1, "new_group": 2, "groups_left_out": 3, "rank_ties": 4, "prior_predictive": 5}


def named_key(seed: int, step: str) -> jax.Array:
    """The key of one step that draws with JAX."""
    if step not in KEYS:  # no test would hold it apart from the others
        raise ValueError(f"{step} is not a step that draws with JAX; there are {', '.join(KEYS)}")
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(step.encode()))


def named_generator(seed: int, step: str, *part: int) -> np.random.Generator:
    """The random numbers of one step that draws with NumPy, or of a numbered part of it."""
    return np.random.default_rng(_sequence(seed, step, *part))


def named_seed(seed: int, step: str, *part: int) -> int:
    """A seed of its own for a numbered part of a step."""
    return int(_sequence(seed, step, *part).generate_state(1)[0])


def _sequence(seed: int, step: str, *part: int) -> np.random.SeedSequence:
    return np.random.SeedSequence(seed, spawn_key=(GENERATORS[step], *part))
