"""A model and its data to posterior draws: NUTS as one program on any number of devices.

The chains are spread over the devices and run on each device in sequence (`map`) or side by side (`vmap`). The program
advances a chain by one chunk of `checkpoint_every` steps. The number of steps is an argument, so one program serves
warm-up, sampling and every remainder, and the draws do not depend on the length of a chunk. They do not depend on the
number of devices either: each device runs the program of a single chain, compiled once for all. Data and prior values
are arguments too: another table of the same shape, prior value or seed compiles nothing. A `Snapshot` after a chunk
suffices to resume to the same draws, also in another process.
"""

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer import NUTS

from poolwise.counts.cells import Counts
from poolwise.errors import FitError
from poolwise.inference import rates
from poolwise.inference.devices import over_devices, shared, spread
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
    rows = _rows(sampler.num_chains, device)
    chains = jax.random.split(jax.random.key(seed), sampler.num_chains), jnp.arange(sampler.num_chains)
    args = shared(args, device.num_devices)
    begin = resume_from
    if begin is None:
        begin = Snapshot(steps=0, state={}, drawn={}, seconds=0.0)
        states = [start(row, *args) for row in _spread(chains, rows, device)]
    else:
        shapes = jax.eval_shape(start, jax.tree.map(lambda leaf: leaf[rows[0]], chains), *args)
        buffers = jax.eval_shape(advance, shapes, 0, *args)[1]
        whole, buffer = (_of_chains(each, sampler.num_chains) for each in (shapes, buffers))
        check(begin, whole, buffer, num_warmup=sampler.num_warmup, num_samples=sampler.num_samples)
        states = _spread(restored(begin.state, whole), rows, device)
    chunks = list(_schedule(sampler, begin.steps))
    if chunks:
        advance(states[0], 0, *args)[0].i.block_until_ready()  # compiles; 0 steps change nothing
    _check_start(states)
    compiled = time.perf_counter()
    sampling_began = compiled - begin.seconds  # excludes the interruption
    kept = [begin.drawn] if begin.drawn else []
    steps = begin.steps
    for phase, done, total, num_steps in chunks:
        moved = [advance(state, num_steps, *args) for state in states]
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
    """The compiled `start((keys, chains), *args)` and `advance(state, num_steps, *args)` of a row of one variant."""
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


def _rows(num_chains: int, device: Device) -> list[slice]:
    """The chains that advance in one call: one chain of each device, or all chains."""
    width = len(jax.devices()[: device.num_devices]) if device.chain_method == "map" else num_chains
    return [slice(at, at + width) for at in range(0, num_chains, width)]


def _spread(leaves: Any, rows: list[slice], device: Device) -> list[Any]:
    """The rows of arrays of all chains, each spread over the devices."""
    return [spread(jax.tree.map(lambda leaf, row=row: leaf[row], leaves), device.num_devices) for row in rows]


def _over_chains(fn: Callable, *, device: Device) -> Callable:
    """`fn` over the leading (chain) axis of its first argument, as long as a row; compiled."""

    def one_after_another(first: Any, *rest: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf[None], fn(jax.tree.map(lambda leaf: leaf[0], first), *rest))

    def side_by_side(first: Any, *rest: Any) -> Any:
        return jax.vmap(lambda chain: fn(chain, *rest))(first)

    return over_devices(one_after_another if device.chain_method == "map" else side_by_side, device.num_devices)


def _of_chains(shapes: Any, num_chains: int) -> Any:
    """Shapes of a row to shapes of all chains."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((num_chains, *leaf.shape[1:]), leaf.dtype), shapes)


def _of_all(by_row: Sequence[Mapping[str, jax.Array]]) -> Draws:
    """Arrays of rows joined to arrays of all chains, (chain, ...)."""
    rows = jax.device_get(by_row)
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


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
