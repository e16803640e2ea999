"""A model and its data to posterior draws: NUTS as one compiled program on any number of devices.

The chains are spread over the devices (`shard_map`) and on each device follow one another (`lax.map`) or run side
by side (`vmap`). The program advances every chain by one chunk of `checkpoint_every` steps; the number of steps is
an argument, so the same program serves warm-up, sampling and every remainder, and the draws do not depend on the
length of a chunk nor on the number of devices. Data and prior values are arguments too: another table of the same
shape, another prior value or another seed compiles nothing. After a chunk, a `Snapshot` is all that is needed to go on
to the very draws, in another process too.
"""

import functools
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpyro.infer import NUTS

from poolwise.data import Counts, sufficient_statistics
from poolwise.errors import DeviceError, FitError
from poolwise.model import Model
from poolwise.snapshot import Snapshot, check, leaves_of, restored

Draws = dict[str, np.ndarray]

_programs_made = Counter[str]()  # by JAX in this process: compiled, and loaded from the cache on disk


@dataclass(frozen=True)
class Sampler:
    """How long and how carefully to sample; see `conf/sampler`."""

    num_warmup: int
    num_samples: int
    num_chains: int
    target_accept: float
    max_tree_depth: int
    checkpoint_every: int


@dataclass(frozen=True)
class Device:
    """What to compute on; see `conf/device`."""

    platform: str
    num_devices: int
    chain_method: str
    x64: bool


@dataclass(frozen=True)
class Progress:
    """What is known after a chunk.

    Attributes
    ----------
    phase : "warm-up" or "sampling"
    done, total : steps per chain of this phase
    divergences : after the warm-up, over all chains
    step_size : mean over the chains
    posterior : function giving the draws so far, site -> (chain, draw, ...)
    """

    phase: str
    done: int
    total: int
    divergences: int
    step_size: float
    posterior: Callable[[], Draws]


@dataclass(frozen=True)
class Fit:
    """The draws of one fit.

    Attributes
    ----------
    posterior : site -> (chain, draw, ...), the sampled sites and the derived `alpha`, `beta`, `phi`
    sample_stats : diverging, energy, lp, n_steps, tree_depth, acceptance_rate, step_size -> (chain, draw)
    seconds : stage ("compile", "sample") -> seconds
    """

    posterior: Draws
    sample_stats: Draws
    seconds: dict[str, float] = field(default_factory=dict)


def usable_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def choose_num_devices(asked: int | None, *, num_chains: int, platform: str, cores: int) -> int:
    """Number of devices: as asked, else the largest divisor of `num_chains` not above `cores` (or the GPUs).

    Raises
    ------
    DeviceError
        if the chains cannot be spread evenly over what was asked.
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
    """How many programs this process has compiled, and loaded from the cache on disk, so far."""
    return {"compiled": _programs_made["compiled"], "loaded": _programs_made["loaded"]}


def start_devices(*, platform: str, num_devices: int | None, x64: bool, num_chains: int, cache_dir: str) -> int:
    """Start the JAX backend as asked, once per process; returns the number of devices in use.

    Raises
    ------
    DeviceError
        if the platform, or so many devices, cannot be had, or a backend with other settings is up already.
    """
    if platform == "cpu":
        num_devices = choose_num_devices(num_devices, num_chains=num_chains, platform="cpu", cores=usable_cores())
    settings = {"jax_platforms": {"gpu": "cuda"}.get(platform, platform), "jax_enable_x64": x64}
    if platform == "cpu" and jax.config.jax_num_cpu_devices != num_devices:
        settings["jax_num_cpu_devices"] = num_devices
    try:
        for name, value in settings.items():
            jax.config.update(name, value)
        available = len(jax.devices())
    except (RuntimeError, AssertionError) as error:  # JAX asserts where a platform has no plugin
        reason = next(iter(str(error).splitlines()), f"JAX finds no {platform} backend") + "."
        raise DeviceError(
            f"device.platform={platform}, device.num_devices={num_devices} cannot be had here: {reason} "
            "Choose another platform, or start a new process for other device settings."
        ) from None
    num_devices = choose_num_devices(num_devices, num_chains=num_chains, platform=platform, cores=available)
    if num_devices > available or jax.default_backend() != platform:
        raise DeviceError(
            f"device.num_devices={num_devices} on {platform}: this process has {available} on {jax.default_backend()}. "
            "Device settings cannot change within a process: start a new one, or ask for what there is."
        )
    _use_compilation_cache(cache_dir)
    return num_devices


def fit(
    model: Model,
    counts: Counts,
    values: Mapping[str, Mapping[str, np.ndarray]],
    *,
    seed: int,
    sampler: Sampler,
    device: Device,
    begin: Snapshot | None = None,
    on_chunk: Callable[[Snapshot], None] | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Fit:
    """Draw from the posterior. The same arguments give the same bits, whatever `device.num_devices` and `begin`.

    Parameters
    ----------
    values : site -> parameter -> (), the values of the priors (`priors.prior_values`)
    begin : where to go on, with all draws so far, from a fit with the same arguments, `checkpoint_every` and
        `device.num_devices` excepted; only shapes are checked, the caller answers for the values
    on_chunk : called after every chunk, those of the warm-up included, with the draws of that chunk alone
    on_progress : called after every chunk, and after `on_chunk`

    Raises
    ------
    FitError
        if a chain finds no starting point with a finite density, or `begin` is of another kind of fit.
    """
    args = (sufficient_statistics(counts), values)
    began = time.perf_counter()
    start, advance = _programs(model, sampler, device)

    def first() -> Any:
        return start(jax.random.split(jax.random.key(seed), sampler.num_chains), *args)

    if begin is None:
        begin = Snapshot(steps=0, state={}, drawn={}, seconds=0.0)
        state = first()
    else:
        shapes = _spread(jax.eval_shape(first), device)
        buffer = jax.eval_shape(advance, shapes, 0, *args)[1]
        check(begin, shapes, buffer, num_warmup=sampler.num_warmup, num_samples=sampler.num_samples)
        state = restored(begin.state, shapes)
    chunks = list(_schedule(sampler, begin.steps))
    if chunks:
        advance(state, 0, *args)[0].i.block_until_ready()  # no step: compiles, changes nothing
    _check_start(state)
    compiled = time.perf_counter()
    sampling_began = compiled - begin.seconds  # as if there had been no break
    kept = [begin.drawn] if begin.drawn else []
    steps = begin.steps
    for phase, done, total, num_steps in chunks:
        state, buffer = advance(state, num_steps, *args)
        steps += num_steps
        if phase == "sampling":
            kept.append({name: np.asarray(leaf)[:, :num_steps] for name, leaf in buffer.items()})
        if on_chunk:
            drawn = kept[-1] if phase == "sampling" else {}
            on_chunk(Snapshot(steps, jax.device_get(leaves_of(state)), drawn, time.perf_counter() - sampling_began))
        on_progress(_progress(phase, done, total, state, kept))
    drawn = _joined(kept)
    seconds = {"compile": compiled - began, "sample": time.perf_counter() - sampling_began}
    return Fit(_sites(drawn), _sample_stats(drawn), seconds)


@functools.lru_cache(maxsize=16)
def _programs(model: Model, sampler: Sampler, device: Device) -> tuple[Callable, Callable]:
    """The compiled `start(keys, *args)` and `advance(state, num_steps, *args)` of one variant."""
    kernel = NUTS(model.collapsed, target_accept_prob=sampler.target_accept, max_tree_depth=sampler.max_tree_depth)
    length = min(sampler.checkpoint_every, max(sampler.num_warmup, sampler.num_samples))
    spread = functools.partial(_over_chains, device=device)

    @spread
    def start(key: jax.Array, *args: Any) -> Any:
        return kernel.init(key, sampler.num_warmup, None, args, {})

    @spread
    def advance(state: Any, num_steps: jax.Array, *args: Any) -> Any:
        constrain = kernel.postprocess_fn(args, {})

        def draw(state: Any) -> dict[str, jax.Array]:
            drawn = {f"site/{name}": value for name, value in constrain(state.z).items() if name != "y"}
            drawn |= {name: getattr(state, name) for name in ("diverging", "energy", "num_steps", "accept_prob")}
            return drawn | {"potential_energy": state.potential_energy, "step_size": state.adapt_state.step_size}

        def step(i: jax.Array, carry: Any) -> Any:
            state, buffer = carry
            state = kernel.sample(state, args, {})
            return state, jax.tree.map(lambda kept, leaf: kept.at[i].set(leaf), buffer, draw(state))

        shapes = jax.eval_shape(draw, state)
        buffer = jax.tree.map(lambda leaf: jnp.zeros((length, *leaf.shape), leaf.dtype), shapes)
        return jax.lax.fori_loop(0, num_steps, step, (state, buffer))

    return start, advance


def _over_chains(fn: Callable, *, device: Device) -> Callable:
    """`fn` over the leading (chain) axis of its first argument, spread over the devices; compiled."""
    mesh = _mesh(device)

    def block(first: Any, *rest: Any) -> Any:
        def one(chain: Any) -> Any:
            return fn(chain, *rest)

        return jax.lax.map(one, first) if device.chain_method == "map" else jax.vmap(one)(first)

    def call(first: Any, *rest: Any) -> Any:
        specs = (PartitionSpec("chain"), *(PartitionSpec() for _ in rest))
        spread = jax.shard_map(block, mesh=mesh, in_specs=specs, out_specs=PartitionSpec("chain"), check_vma=False)
        return spread(first, *rest)

    return jax.jit(call)


def _mesh(device: Device) -> Mesh:
    return Mesh(np.array(jax.devices()[: device.num_devices]), ("chain",))


def _spread(shapes: Any, device: Device) -> Any:
    """The same shapes, spread over the devices as what `start` gives, so that `advance` is traced and compiled once."""
    sharding = NamedSharding(_mesh(device), PartitionSpec("chain"))
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes)


def _schedule(sampler: Sampler, steps: int) -> Iterator[tuple[str, int, int, int]]:
    """The chunks after so many steps: (phase, steps done after the chunk, steps of the phase, steps of the chunk).

    Chunks end with the warm-up.
    """
    phases = (("warm-up", 0, sampler.num_warmup), ("sampling", sampler.num_warmup, sampler.num_samples))
    for phase, before, total in phases:
        for begin in range(max(steps - before, 0), total, sampler.checkpoint_every):
            num_steps = min(sampler.checkpoint_every, total - begin)
            yield phase, begin + num_steps, total, num_steps


def _progress(phase: str, done: int, total: int, state: Any, kept: list[Draws]) -> Progress:
    def posterior() -> Draws:
        return _sites(_joined(kept))

    return Progress(
        phase=phase,
        done=done,
        total=total,
        divergences=sum(int(chunk["diverging"].sum()) for chunk in kept),
        step_size=float(np.mean(np.asarray(state.adapt_state.step_size))),
        posterior=posterior,
    )


def _joined(kept: list[Draws]) -> Draws:
    return {name: np.concatenate([chunk[name] for chunk in kept], axis=1) for name in kept[0]}


def _sites(drawn: Draws) -> Draws:
    return {name.removeprefix("site/"): value for name, value in drawn.items() if name.startswith("site/")}


def _sample_stats(drawn: Draws) -> Draws:
    """The statistics of the sampler under ArviZ's names."""
    return {
        "diverging": drawn["diverging"],
        "energy": drawn["energy"],
        "lp": -drawn["potential_energy"],
        "n_steps": drawn["num_steps"],
        "tree_depth": np.log2(np.maximum(drawn["num_steps"], 1)).astype(int) + 1,
        "acceptance_rate": drawn["accept_prob"],
        "step_size": drawn["step_size"],
    }


def _check_start(state: Any) -> None:
    lost = np.flatnonzero(~np.isfinite(np.asarray(state.potential_energy)))
    if lost.size:
        raise FitError(
            f"chains {', '.join(map(str, lost))}: no starting point with a finite density in 100 tries. "
            "The priors and the scale of the counts do not meet; compare prior.* with the rates in the data."
        )


@functools.cache
def _use_compilation_cache(cache_dir: str) -> None:
    """Keep compiled programs on disk (a later process loads them in a tenth of the time), and count them."""
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", cache_dir)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    names = {"/jax/compilation_cache/cache_misses": "compiled", "/jax/compilation_cache/cache_hits": "loaded"}
    jax.monitoring.register_event_listener(
        lambda event, **_: _programs_made.update([names[event]] if event in names else [])
    )
