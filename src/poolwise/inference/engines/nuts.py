"""A model and its data to posterior draws: NUTS as one program on any number of devices.

The chains are spread over the devices and run on each device in sequence (`map`) or side by side (`vmap`). The program
advances a chain by one chunk of `checkpoint_every` steps. The number of steps is an argument, so one program serves
warm-up, sampling and every remainder, and the draws do not depend on the length of a chunk. They do not depend on the
number of devices either: each device runs the program of a single chain. (One program over all devices compiles
differently for one device than for several, also with `shard_map`, and gives other bits in some models.) Data and prior
values are arguments too: another table of the same shape, prior value or seed compiles nothing. A `Snapshot` after a
chunk suffices to resume to the same draws, also in another process.
"""

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer import NUTS

from poolwise.counts.cells import Counts
from poolwise.errors import FitError
from poolwise.inference import rates
from poolwise.inference.engines.base import Draws, Engine, Fit, Progress
from poolwise.inference.settings import Device, Sampler
from poolwise.inference.snapshot import Snapshot, check, leaves_of, restored
from poolwise.inference.starts import started
from poolwise.model.count_model import AUXILIARY, Model
from poolwise.model.priors import PriorValues


def sample(
    model: Model,
    counts: Counts,
    values: PriorValues,
    *,
    seed: int,
    sampler: Sampler,
    device: Device,
    resume_from: Snapshot | None = None,
    on_chunk: Callable[[Snapshot], None] | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Fit:
    """Draws by NUTS; see `Sample`. A chunk of the warm-up can be resumed from too."""
    args = (model.statistics_of(counts), values)
    began = time.perf_counter()
    start, advance = _programs(model, sampler, device)
    batches = _batches(sampler.num_chains, device)
    chains = jax.random.split(jax.random.key(seed), sampler.num_chains), jnp.arange(sampler.num_chains)
    given = {batch.device: jax.device_put(args, batch.device) for batch in batches}
    begin = resume_from
    if begin is None:
        begin = Snapshot(steps=0, state={}, drawn={}, seconds=0.0)
        on = given[batches[0].device]  # on one: compiled once
        states = [start(jax.tree.map(lambda leaf, batch=batch: leaf[batch.chains], chains), *on) for batch in batches]
    else:
        shapes = jax.eval_shape(start, jax.tree.map(lambda leaf: leaf[batches[0].chains], chains), *args)
        buffers = jax.eval_shape(advance, shapes, 0, *args)[1]
        whole, buffer = (_of_chains(each, sampler.num_chains) for each in (shapes, buffers))
        check(begin, whole, buffer, num_warmup=sampler.num_warmup, num_samples=sampler.num_samples)
        state = restored(begin.state, whole)
        states = [jax.tree.map(lambda leaf, batch=batch: leaf[batch.chains], state) for batch in batches]
    states = [jax.device_put(state, batch.device) for state, batch in zip(states, batches, strict=True)]
    chunks = list(_schedule(sampler, begin.steps))
    if chunks:
        _compile(advance, states, batches, given)
    _check_start(states)
    compiled = time.perf_counter()
    sampling_began = compiled - begin.seconds  # excludes the interruption
    kept = [begin.drawn] if begin.drawn else []
    steps = begin.steps
    for phase, done, total, num_steps in chunks:
        moved = [advance(state, num_steps, *given[batch.device]) for state, batch in zip(states, batches, strict=True)]
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
    posterior = _with_rates(model, counts, values, _sites(drawn), seed=seed, num_devices=device.num_devices)
    seconds = {"compile": compiled - began, "sample": time.perf_counter() - sampling_began}
    return Fit(posterior, _sample_stats(drawn), seconds)


@functools.lru_cache(maxsize=16)
def _programs(model: Model, sampler: Sampler, device: Device) -> tuple[Callable, Callable]:
    """The compiled `start((keys, chains), *args)` and `advance(state, num_steps, *args)` of a batch of one variant."""
    kernel = NUTS(model.log_joint, target_accept_prob=sampler.target_accept, max_tree_depth=sampler.max_tree_depth)
    length = min(sampler.checkpoint_every, max(sampler.num_warmup, sampler.num_samples))
    over_chains = functools.partial(_over_chains, device=device)

    @over_chains
    def start(chain: tuple[jax.Array, jax.Array], *args: Any) -> Any:
        return started(kernel, model, *chain, args, num_warmup=sampler.num_warmup)

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
class ChainBatch:
    """Chains that advance in one call, and their device."""

    chains: slice
    device: jax.Device


def _batches(num_chains: int, device: Device) -> list[ChainBatch]:
    """The batches in the order of the chains: one chain each, or all chains of a device."""
    devices = jax.devices()[: device.num_devices]
    per_device = num_chains // len(devices)
    width = 1 if device.chain_method == "map" else per_device
    return [ChainBatch(slice(at, at + width), devices[at // per_device]) for at in range(0, num_chains, width)]


def _over_chains(fn: Callable, *, device: Device) -> Callable:
    """`fn` over the leading (chain) axis of its first argument, as wide as a batch; compiled."""

    def one_after_another(first: Any, *rest: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf[None], fn(jax.tree.map(lambda leaf: leaf[0], first), *rest))

    def side_by_side(first: Any, *rest: Any) -> Any:
        return jax.vmap(lambda chain: fn(chain, *rest))(first)

    return jax.jit(one_after_another if device.chain_method == "map" else side_by_side)


def _compile(advance: Callable, states: list[Any], batches: list[ChainBatch], given: Mapping[jax.Device, Any]) -> None:
    """Compile for all devices in parallel, by advancing 0 steps, which changes nothing."""
    jax.eval_shape(advance, states[0], 0, *given[batches[0].device])  # traced once for all: NumPyro has one stack
    first = {batch.device: state for state, batch in reversed(list(zip(states, batches, strict=True)))}
    with ThreadPoolExecutor(len(first)) as pool:
        list(pool.map(lambda device: advance(first[device], 0, *given[device])[0].i.block_until_ready(), first))


def _of_chains(shapes: Any, num_chains: int) -> Any:
    """Shapes of a batch to shapes of all chains."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((num_chains, *leaf.shape[1:]), leaf.dtype), shapes)


def _of_all(by_batch: Sequence[Mapping[str, jax.Array]]) -> Draws:
    """Arrays of batches joined to arrays of all chains, (chain, ...)."""
    batches = jax.device_get(by_batch)
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def _schedule(sampler: Sampler, steps: int) -> Iterator[tuple[str, int, int, int]]:
    """The chunks after this many steps: (phase, steps done after the chunk, steps of the phase, steps of the chunk).

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


def _with_rates(
    model: Model, counts: Counts, values: PriorValues, posterior: Draws, *, seed: int, num_devices: int | None
) -> Draws:
    """The draws with the integrated-out rates, drawn after all chunks, or with rates at the draws that are stored."""
    num_chains, length = next(iter(posterior.values())).shape[:2]
    if model.is_marginal:
        lam = rates.draw(model, counts, values, posterior, (num_chains, length), seed=seed, num_devices=num_devices)
    elif model.pooling.is_shared:
        return posterior
    else:
        lam = posterior["lam"][:, rates.stored_draws(num_chains, length, counts.num_groups)]
    return dict(sorted((posterior | {"lam": lam}).items()))


def _sample_stats(drawn: Draws) -> Draws:
    """The sampler statistics under ArviZ's names."""
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
            "The priors and the scale of the counts are incompatible; compare prior.* with the rates in the data."
        )


NUTS_ENGINE = Engine("nuts", sample, ("num_warmup", "target_accept", "max_tree_depth", "checkpoint_every"))
