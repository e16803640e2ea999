"""A model and its data to posterior draws: NUTS as one program on any number of devices.

The chains are spread over the devices and on each device follow one another (`map`) or run side by side (`vmap`). The
program advances a chain by one chunk of `checkpoint_every` steps; the number of steps is an argument, so the same
program serves warm-up, sampling and every remainder, and the draws do not depend on the length of a chunk. Nor do they
depend on the number of devices: each is given the program of a single chain. (One program for all chains, over all
devices, is compiled otherwise for one device than for two, and gives other bits.) Data and prior values are arguments
too: another table of the same shape, another prior value or another seed compiles nothing. After a chunk, a `Snapshot`
is all that is needed to go on to the very draws, in another process too.
"""

import functools
import os
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer import NUTS

from poolwise.data import Counts, sufficient_statistics
from poolwise.errors import DeviceError, FitError
from poolwise.model import AUXILIARY, Model
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
    posterior : site -> (chain, draw, ...), the sampled sites, rates that were integrated out, and the derived
        `alpha`, `beta`, `phi`
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
    lanes = _lanes(sampler.num_chains, device)
    keys = jax.random.split(jax.random.key(seed), sampler.num_chains)
    given = {lane.device: jax.device_put(args, lane.device) for lane in lanes}
    if begin is None:
        begin = Snapshot(steps=0, state={}, drawn={}, seconds=0.0)
        states = [start(keys[lane.chains], *given[lanes[0].device]) for lane in lanes]  # on one: compiled once
    else:
        shapes = jax.eval_shape(start, keys[lanes[0].chains], *args)
        whole, buffer = (_of_chains(each, len(keys)) for each in (shapes, jax.eval_shape(advance, shapes, 0, *args)[1]))
        check(begin, whole, buffer, num_warmup=sampler.num_warmup, num_samples=sampler.num_samples)
        state = restored(begin.state, whole)
        states = [jax.tree.map(lambda leaf, lane=lane: leaf[lane.chains], state) for lane in lanes]
    states = [jax.device_put(state, lane.device) for state, lane in zip(states, lanes, strict=True)]
    chunks = list(_schedule(sampler, begin.steps))
    if chunks:
        _compile(advance, states, lanes, given)
    _check_start(states)
    compiled = time.perf_counter()
    sampling_began = compiled - begin.seconds  # as if there had been no break
    kept = [begin.drawn] if begin.drawn else []
    steps = begin.steps
    for phase, done, total, num_steps in chunks:
        moved = [advance(state, num_steps, *given[lane.device]) for state, lane in zip(states, lanes, strict=True)]
        states = [state for state, _ in moved]
        steps += num_steps
        if phase == "sampling":
            drawn = _of_all([buffer for _, buffer in moved])
            kept.append({name: leaf[:, :num_steps] for name, leaf in drawn.items()})
        if on_chunk:
            state, drawn = _of_all(list(map(leaves_of, states))), kept[-1] if phase == "sampling" else {}
            on_chunk(Snapshot(steps, state, drawn, time.perf_counter() - sampling_began))
        on_progress(_progress(phase, done, total, states, kept))
    drawn = _joined(kept)
    posterior = _with_rates(model, _sites(drawn), args[0], seed)
    seconds = {"compile": compiled - began, "sample": time.perf_counter() - sampling_began}
    return Fit(posterior, _sample_stats(drawn), seconds)


@functools.lru_cache(maxsize=16)
def _programs(model: Model, sampler: Sampler, device: Device) -> tuple[Callable, Callable]:
    """The compiled `start(keys, *args)` and `advance(state, num_steps, *args)` of a lane of one variant."""
    kernel = NUTS(model.collapsed, target_accept_prob=sampler.target_accept, max_tree_depth=sampler.max_tree_depth)
    length = min(sampler.checkpoint_every, max(sampler.num_warmup, sampler.num_samples))
    over_chains = functools.partial(_over_chains, device=device)

    @over_chains
    def start(key: jax.Array, *args: Any) -> Any:
        return kernel.init(key, sampler.num_warmup, None, args, {})

    @over_chains
    def advance(state: Any, num_steps: jax.Array, *args: Any) -> Any:
        constrain = kernel.postprocess_fn(args, {})

        def draw(state: Any) -> dict[str, jax.Array]:
            drawn = {f"site/{name}": value for name, value in constrain(state.z).items() if name not in AUXILIARY}
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


@dataclass(frozen=True)
class _Lane:
    """Chains that advance in one call, and where."""

    chains: slice
    device: jax.Device


def _lanes(num_chains: int, device: Device) -> list[_Lane]:
    """The lanes in the order of the chains: of one chain each, or of all chains of a device."""
    devices, per_device = jax.devices()[: device.num_devices], num_chains // device.num_devices
    width = 1 if device.chain_method == "map" else per_device
    return [_Lane(slice(at, at + width), devices[at // per_device]) for at in range(0, num_chains, width)]


def _over_chains(fn: Callable, *, device: Device) -> Callable:
    """`fn` over the leading (chain) axis of its first argument, as wide as a lane; compiled."""

    def one_after_another(first: Any, *rest: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf[None], fn(jax.tree.map(lambda leaf: leaf[0], first), *rest))

    def side_by_side(first: Any, *rest: Any) -> Any:
        return jax.vmap(lambda chain: fn(chain, *rest))(first)

    return jax.jit(one_after_another if device.chain_method == "map" else side_by_side)


def _compile(advance: Callable, states: list[Any], lanes: list[_Lane], given: Mapping[jax.Device, Any]) -> None:
    """Compile for every device, at the same time: by no step, which changes nothing."""
    jax.eval_shape(advance, states[0], 0, *given[lanes[0].device])  # traced once, for all: NumPyro has one stack
    first = {lane.device: state for state, lane in reversed(list(zip(states, lanes, strict=True)))}
    with ThreadPoolExecutor(len(first)) as pool:
        list(pool.map(lambda device: advance(first[device], 0, *given[device])[0].i.block_until_ready(), first))


def _of_chains(shapes: Any, num_chains: int) -> Any:
    """The shapes of a lane as those of all chains."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((num_chains, *leaf.shape[1:]), leaf.dtype), shapes)


def _of_all(by_lane: Sequence[Mapping[str, jax.Array]]) -> Draws:
    """What lanes have, (chain, ...), of all chains."""
    lanes = jax.device_get(by_lane)
    return {name: np.concatenate([lane[name] for lane in lanes]) for name in lanes[0]}


def _schedule(sampler: Sampler, steps: int) -> Iterator[tuple[str, int, int, int]]:
    """The chunks after so many steps: (phase, steps done after the chunk, steps of the phase, steps of the chunk).

    Chunks end with the warm-up.
    """
    phases = (("warm-up", 0, sampler.num_warmup), ("sampling", sampler.num_warmup, sampler.num_samples))
    for phase, before, total in phases:
        for begin in range(max(steps - before, 0), total, sampler.checkpoint_every):
            num_steps = min(sampler.checkpoint_every, total - begin)
            yield phase, begin + num_steps, total, num_steps


def _progress(phase: str, done: int, total: int, states: list[Any], kept: list[Draws]) -> Progress:
    def posterior() -> Draws:
        return _sites(_joined(kept))

    return Progress(
        phase=phase,
        done=done,
        total=total,
        divergences=sum(int(chunk["diverging"].sum()) for chunk in kept),
        step_size=float(np.mean([state.adapt_state.step_size for state in states])),
        posterior=posterior,
    )


def _joined(kept: list[Draws]) -> Draws:
    return {name: np.concatenate([chunk[name] for chunk in kept], axis=1) for name in kept[0]}


def _sites(drawn: Draws) -> Draws:
    return {name.removeprefix("site/"): value for name, value in drawn.items() if name.startswith("site/")}


def _with_rates(model: Model, posterior: Draws, statistics: Mapping[str, np.ndarray], seed: int) -> Draws:
    """The draws with the rates that were integrated out, drawn given each: on one device, after all chunks."""
    if not model.is_integrated:
        return posterior
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(b"rates"))  # a small number would be a chain's own key
    chains = next(iter(posterior.values())).shape[:2]
    flat = {name: draws.reshape(-1) for name, draws in posterior.items()}
    lam = np.asarray(_rates_program(model)(key, flat, statistics))  # (D, G)
    return dict(sorted((posterior | {"lam": lam.reshape(*chains, -1)}).items()))


@functools.lru_cache(maxsize=16)
def _rates_program(model: Model) -> Callable:
    return jax.jit(model.integrated_rates)


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


def _check_start(states: list[Any]) -> None:
    lost = np.flatnonzero(~np.isfinite(np.concatenate([state.potential_energy for state in states])))
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
