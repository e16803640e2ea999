"""Versions, devices and flags: everything outside code and settings that may change the bits of the draws."""

import functools
import importlib.metadata
import os
import platform
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from packaging.markers import Marker
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

DRAW_LIBRARIES = ("jax", "jaxlib", "numpyro", "numpy")
# The keys of the stack that bit-identity depends on: equal values give equal bits. Neither the number of devices or
# cores nor the libraries used after sampling matter.
STACK_OF_BITS = (
    *("python", *DRAW_LIBRARIES),
    *("platform", "device_kind", "cpu", "x64", "chain_method", "xla_flags", "jax_flags"),
)
JAX_FLAGS = (  # settings of JAX that may change bits: random numbers, arithmetic, compilation
    *("jax_default_prng_impl", "jax_enable_custom_prng", "jax_random_seed_offset", "jax_high_dynamic_range_gumbel"),
    *("jax_threefry_partitionable", "jax_threefry_gpu_kernel_lowering"),
    *("jax_default_matmul_precision", "jax_numpy_dtype_promotion", "jax_explicit_x64_dtypes", "jax_accurate_erf_inv"),
    *("jax_use_hlo_logistic_lowering", "jax_use_direct_linearize", "jax_compiler_enable_remat_pass"),
    *("jax_disable_jit", "jax_disable_most_optimizations", "jax_optimization_level"),
)


@functools.cache  # the distributions of a process do not change
def distributions() -> str:
    """Every installed distribution, `name==version` per line."""
    found = {f"{each.name}=={each.version}" for each in importlib.metadata.distributions()}
    return "\n".join(sorted(found, key=str.lower)) + "\n"


def versions_of(text: str) -> dict[str, str]:
    """Canonical name -> version, of every pinned line of a requirements file or lock."""
    return {name: version for name, version, _ in pins(text)}


def stack(device: Mapping[str, Any]) -> dict[str, Any]:
    """Everything outside code and settings that may change the bits of the draws; starts JAX if necessary.

    Parameters
    ----------
    device : platform, num_devices, chain_method and x64 as actually used
    """
    import jax  # here: comparing records needs no JAX

    devices = jax.devices()[: device.get("num_devices")]
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        **{name: importlib.metadata.version(name) for name in (*DRAW_LIBRARIES, "arviz", "mlflow", "hydra-core")},
        **device,
        "devices": [str(each) for each in devices],
        "device_kind": ", ".join(sorted({each.device_kind for each in devices})),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "jax_flags": {name: _plain(jax.config.values[name]) for name in JAX_FLAGS if name in jax.config.values},
    }


def pins(text: str) -> Iterator[tuple[str, str, Marker | None]]:
    """Name, version and marker of every pinned line; comments, hashes and options are skipped."""
    for line in text.splitlines():
        with suppress(InvalidRequirement):
            found = Requirement(re.split(r"\s+(?:#|--|\\)|\\", line)[0])
            versions = [each.version for each in found.specifier if each.operator == "=="]
            yield from ((canonicalize_name(found.name), version, found.marker) for version in versions)


def _plain(value: Any) -> Any:
    """A setting as a JSON value."""
    return value if value is None or type(value) in {bool, int, str} else str(value)


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
