"""The stack: versions, devices and settings of JAX that may decide the bits of the draws."""

import json

import jax
import numpy as np
import pytest

from poolwise.provenance import stack as stack_module
from poolwise.provenance.stack import stack, versions_of

DEVICE = {"platform": "cpu", "num_devices": 2, "chain_method": "map", "x64": True}


def test_the_stack_holds_versions_flags_and_devices(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=x")
    found = stack(DEVICE)
    expected = {**DEVICE, "xla_flags": "--xla_dump_to=x", "numpy": np.__version__}
    assert expected.items() <= found.items()
    assert {"python", "system", "cpu", "cores", "jax", "jaxlib", "numpyro"} <= found.keys()


def test_the_stack_holds_what_bits_are_promised_on():
    assert set(stack_module.STACK_OF_BITS) <= stack(DEVICE).keys()


def test_the_stack_names_the_devices_in_use_and_no_other():
    assert (found := stack(DEVICE))["devices"] == [str(each) for each in jax.devices()]
    assert found["device_kind"] == "cpu"
    assert len(stack(DEVICE | {"num_devices": 1})["devices"]) == 1


def test_the_number_of_devices_is_no_part_of_what_bits_are_promised_on():
    one, two = stack(DEVICE | {"num_devices": 1}), stack(DEVICE)
    assert [key for key in stack_module.STACK_OF_BITS if one[key] != two[key]] == []


def test_the_stack_survives_json():
    found = stack(DEVICE)
    assert json.loads(json.dumps(found)) == found
    assert {type(value) for value in found["jax_flags"].values()} <= {bool, int, str, type(None)}


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("jax_threefry_partitionable", False, False),
        ("jax_default_prng_impl", "rbg", "rbg"),
        ("jax_default_matmul_precision", "float32", "float32"),
        ("jax_numpy_dtype_promotion", "strict", "strict"),
        ("jax_random_seed_offset", 1, 1),
    ],
)
def test_the_stack_tells_a_setting_of_jax_that_may_change_bits(name, value, told):
    before = jax.config.values[name]
    assert stack(DEVICE)["jax_flags"][name] != told
    jax.config.update(name, value)
    try:
        assert stack(DEVICE)["jax_flags"][name] == told
    finally:
        jax.config.update(name, before)


def test_every_setting_of_jax_that_is_asked_for_is_known_to_it():
    assert set(stack_module.JAX_FLAGS) == stack(DEVICE)["jax_flags"].keys()


def test_every_installed_distribution_has_a_version():
    assert len(versions_of(stack_module.distributions())) == len(stack_module.distributions().splitlines())


def test_distributions_are_pinned_lines_in_alphabetic_order():
    lines = stack_module.distributions().splitlines()
    assert lines == sorted(set(lines), key=str.lower)
    assert f"numpy=={np.__version__}" in lines
