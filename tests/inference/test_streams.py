"""Random numbers of named steps: distinct from each other and from those of every chain."""

import jax
import numpy as np
import pytest

from poolwise.inference.streams import GENERATORS, KEYS, named_generator, named_key, named_seed


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_keys_of_steps_are_distinct_from_each_other_and_from_those_of_chains(seed):
    chains = jax.random.key_data(jax.random.split(jax.random.key(seed), 5000))
    steps = [jax.random.key_data(named_key(seed, step)) for step in KEYS]
    every = {tuple(np.asarray(key).tolist()) for key in (*chains, *steps)}
    assert len(every) == 5000 + len(KEYS)


def test_generators_of_steps_and_parts_are_distinct():
    first = [named_generator(3, step, *part).integers(2**63) for step in GENERATORS for part in ((), (0,), (1,))]
    assert len(set(first)) == len(first)


def test_same_step_of_another_seed_is_another_stream():
    assert named_generator(0, "new_group").integers(2**63) != named_generator(1, "new_group").integers(2**63)
    assert named_seed(0, "groups_left_out", 1) != named_seed(0, "groups_left_out", 2)


def test_step_that_is_not_in_the_list_is_refused():
    with pytest.raises(ValueError, match="posterior"):
        named_key(0, "posterior")
    with pytest.raises(KeyError, match="posterior"):
        named_generator(0, "posterior")
