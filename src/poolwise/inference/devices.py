"""The JAX devices of a process and its threads of linear algebra, set once; and the count of its compiled programs."""

import functools
import os
from collections import Counter

import jax
import threadpoolctl  # type: ignore[import-untyped]

from poolwise.errors import DeviceError

_programs_made = Counter[str]()  # by JAX in this process: compiled, and loaded from the cache on disk


def usable_cores() -> int:
    """Number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def choose_num_devices(asked: int | None, *, num_chains: int, platform: str, cores: int) -> int:
    """Number of devices: as requested, otherwise the largest divisor of `num_chains` up to `cores` (or the GPUs).

    Raises
    ------
    DeviceError
        if the requested number does not divide the number of chains.
    """
    if asked is None:
        available = cores if platform == "cpu" else len(jax.devices(platform))
        return max(n for n in range(1, min(num_chains, available) + 1) if num_chains % n == 0)
    if num_chains % asked:
        divisors = ", ".join(str(n) for n in range(1, num_chains + 1) if num_chains % n == 0)
        raise DeviceError(
            f"device.num_devices={asked} does not divide sampler.num_chains={num_chains}. Choose one of {divisors}."
        )
    return asked


def programs_made() -> dict[str, int]:
    """Number of programs that this process has compiled, and loaded from the disk cache, so far."""
    return {"compiled": _programs_made["compiled"], "loaded": _programs_made["loaded"]}


def start_devices(*, platform: str, num_devices: int | None, x64: bool, num_chains: int, cache_dir: str) -> int:
    """Start the requested JAX backend, once per process; returns the number of devices in use.

    Raises
    ------
    DeviceError
        if the platform or this many devices are not available, or a backend of another kind or with fewer is running.
    """
    if platform == "cpu":
        num_devices = choose_num_devices(num_devices, num_chains=num_chains, platform="cpu", cores=usable_cores())
    settings = {"jax_platforms": {"gpu": "cuda"}.get(platform, platform), "jax_enable_x64": x64}
    if platform == "cpu" and jax.config.jax_num_cpu_devices < num_devices:  # it may have more, and use the first ones
        settings["jax_num_cpu_devices"] = num_devices
    try:
        for name, value in settings.items():
            jax.config.update(name, value)
        available = len(jax.devices())
    except (RuntimeError, AssertionError) as error:  # JAX asserts if a platform has no plugin
        reason = next(iter(str(error).splitlines()), f"JAX finds no {platform} backend") + "."
        raise DeviceError(
            f"device.platform={platform}, device.num_devices={num_devices} is not available here: {reason} "
            "Choose another platform, or start a new process for other device settings."
        ) from None
    num_devices = choose_num_devices(num_devices, num_chains=num_chains, platform=platform, cores=available)
    if num_devices > available or jax.default_backend() != platform:
        raise DeviceError(
            f"device.num_devices={num_devices} on {platform}: this process has {available} on {jax.default_backend()}. "
            "Device settings cannot change within a process: start a new one, or request the available devices."
        )
    _use_compilation_cache(cache_dir)
    _use_one_blas_thread()
    return num_devices


@functools.cache
def _use_one_blas_thread() -> None:
    """Let BLAS work in the calling thread.

    Its other threads spin on the cores that JAX uses, and a sum of the 16,000 draws of a fit takes 8 ms instead of
    0.01 ms with two. With one, sums do not depend on the number of cores either.
    """
    threadpoolctl.threadpool_limits(1, user_api="blas")


@functools.cache
def _use_compilation_cache(cache_dir: str) -> None:
    """Cache compiled programs on disk (loading takes a tenth of the time), and count them."""
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", cache_dir)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    names = {"/jax/compilation_cache/cache_misses": "compiled", "/jax/compilation_cache/cache_hits": "loaded"}
    jax.monitoring.register_event_listener(
        lambda event, **_: _programs_made.update([names[event]] if event in names else [])
    )
