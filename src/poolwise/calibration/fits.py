"""Simulated tables to the rank of every true value among posterior draws, in one compiled program.

One chain of NUTS fits each table. The program takes a few tables and runs them in sequence (`lax.map`): side by side,
all would wait for the longest trajectory. Every device runs the same program, so no bit depends on their number.
Statistics and prior values are its arguments. The ranks are saved after every batch of tables, so a killed command
resumes where it stopped. No result depends on the batch size.
"""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import infer

from poolwise.calibration import ranks
from poolwise.calibration.simulation import Simulated
from poolwise.counts.cells import Counts
from poolwise.inference import checkpoint
from poolwise.inference.settings import Device
from poolwise.inference.snapshot import Snapshot
from poolwise.inference.starts import started
from poolwise.inference.streams import named_generator, named_key
from poolwise.model.count_model import Model
from poolwise.model.priors import PriorValues

LOG_LIKELIHOOD = "log likelihood"  # of the whole table, as a test quantity
WIDTH = 5  # tables per call of the program


@dataclass(frozen=True)
class Plan:
    """Settings of each fit: one chain, which keeps `draws` after the warm-up, one in `thin` steps."""

    num_warmup: int
    target_accept: float
    max_tree_depth: int
    draws: int
    thin: int


@dataclass(frozen=True, eq=False)
class Recovered:
    """Results of the fits of the first M tables; Q quantities.

    Attributes
    ----------
    names : (Q,)
    truth : (M, Q)
    rank : (M, Q), of the truth among the kept draws, from 0 to their number
    ess : (M, Q), effective sample size of the kept draws
    autocorrelation : (M, Q), of the kept draws, at lag 1
    divergences : (M,), after the warm-up, of all steps
    is_fitted : (M,), False where the chain had no finite start, a draw is not finite, or no table could be drawn
    num_draws : draws kept per fit
    seconds : duration of the fits
    """

    names: tuple[str, ...]
    truth: np.ndarray
    rank: np.ndarray
    ess: np.ndarray
    autocorrelation: np.ndarray
    divergences: np.ndarray
    is_fitted: np.ndarray
    num_draws: int
    seconds: float

    @property
    def done(self) -> int:
        """M."""
        return len(self.rank)


def recover(
    model: Model,
    counts: Counts,
    simulated: Simulated,
    values: PriorValues,
    *,
    seed: int,
    plan: Plan,
    device: Device,
    batch: int,
    folder: Path,
    begin: Snapshot | None = None,
    on_batch: Callable[[Recovered], None] = lambda recovered: None,
) -> Recovered:
    """Fit every table and rank its truth. The same arguments give the same bits for any `batch`, devices and `begin`.

    Parameters
    ----------
    counts : the table whose design was simulated; for the names of its groups
    batch : tables fitted between two saves of the ranks
    folder : where the ranks of each batch are saved
    begin : where to resume, from the folder (`checkpoint.load`) of the same simulations and fits
    on_batch : called after every batch, with all results so far

    Raises
    ------
    OSError
        if the ranks of a batch cannot be saved.
    """
    names, order = names_of(model, counts), (*_scalars(model), "lam", LOG_LIKELIHOOD)
    total = len(simulated.is_possible)
    kept = begin or Snapshot(0, {}, {}, 0.0)
    fit, given = _program(model, plan), (simulated.design, values)
    size = -(-min(batch, total) // WIDTH) * WIDTH
    began = time.perf_counter() - kept.seconds  # excludes the interruption
    while kept.steps < total:
        end = min(kept.steps + size, total)
        numbers = np.minimum(np.arange(kept.steps, kept.steps + size), total - 1)  # the last batch is filled up
        drawn = _fitted(fit, _tables(simulated, numbers, seed), given, device)
        found = _ranked(order, drawn, simulated.is_possible[numbers], numbers, seed)
        now = {name: each[None, : end - kept.steps] for name, each in found.items()}  # one table is one draw
        checkpoint.save(folder, Snapshot(end, {}, now, time.perf_counter() - began))
        joined = {name: np.concatenate([*before, now[name]], axis=1) for name, before in _each(kept, now).items()}
        kept = Snapshot(end, {}, joined, time.perf_counter() - began)
        on_batch(_recovered(names, kept, plan))
    return _recovered(names, kept, plan)


def names_of(model: Model, counts: Counts) -> tuple[str, ...]:
    """The ranked quantities: the parameters, `lam.<label>` for the rate of a group, and the log likelihood."""
    rates = ("lam",) if model.pooling.is_shared else tuple(f"lam.{label}" for label in counts.labels)
    return (*_scalars(model), *rates, LOG_LIKELIHOOD)


def _scalars(model: Model) -> tuple[str, ...]:
    """The sites that take a prior, without the rates."""
    return tuple(site for site in model.sites if site != "lam")


@functools.lru_cache(maxsize=16)
def _program(model: Model, plan: Plan) -> Callable:
    """The compiled `fit(tables of `_tables`, design, values)`: draws, true log likelihood, diagnostics."""
    quantities = (*_scalars(model), "lam")
    kernel = infer.NUTS(model.log_joint, target_accept_prob=plan.target_accept, max_tree_depth=plan.max_tree_depth)

    def fit(table: Any, design: Any, values: Any) -> dict[str, Any]:
        number, key, truth, drawn = table
        statistics = drawn | design
        args = (statistics, values)
        key_chain, key_rates = jax.random.split(key)
        begin = started(kernel, model, key_chain, number, args, num_warmup=plan.num_warmup)  # near data, from the prior
        constrain = kernel.postprocess_fn(args, {})

        def step(_: Any, carry: Any) -> Any:
            state, divergences = carry
            state = kernel.sample(state, args, {})
            return state, divergences + state.diverging

        def keep(carry: Any, _: Any) -> Any:
            carry = jax.lax.fori_loop(0, plan.thin, step, carry)
            return carry, constrain(carry[0].z)

        warm, _ = jax.lax.fori_loop(0, plan.num_warmup, step, (begin, 0))
        (_, divergences), draws = jax.lax.scan(keep, (warm, 0), length=plan.draws)
        if model.is_marginal:
            draws |= {"lam": model.draw_rates(key_rates, draws, statistics)}
        draws = {name: draws[name] for name in quantities}

        def log_likelihood(sites: Any) -> jax.Array:
            lam = jnp.broadcast_to(sites["lam"], statistics["group_total"].shape)
            exposed = model.exposed(statistics, sites)
            return model.likelihood.log_likelihood(exposed, lam, sites | model.likelihood.derived(sites))

        return {
            "draws": draws | {LOG_LIKELIHOOD: jax.vmap(log_likelihood)(draws)},
            "truth": {name: truth[name] for name in draws} | {LOG_LIKELIHOOD: log_likelihood(truth)},
            "divergences": divergences,
            "is_started": jnp.isfinite(begin.potential_energy),
        }

    return jax.jit(lambda tables, design, values: jax.lax.map(lambda table: fit(table, design, values), tables))


def _fitted(fit: Callable, tables: Any, given: Any, device: Device) -> dict[str, Any]:
    """Results of the program for a batch of tables, spread over the devices `WIDTH` at a time."""
    devices = jax.devices()[: device.num_devices]
    size = len(jax.tree.leaves(tables)[0])
    pieces = [jax.tree.map(lambda leaf, at=at: leaf[at : at + WIDTH], tables) for at in range(0, size, WIDTH)]
    jax.eval_shape(fit, pieces[0], *given)  # traced once for all: NumPyro has one stack

    def one(place: int) -> list[Any]:
        local = jax.device_put(given, devices[place])
        mine = pieces[place :: len(devices)]
        return jax.device_get([fit(jax.device_put(piece, devices[place]), *local) for piece in mine])

    with ThreadPoolExecutor(len(devices)) as pool:
        by_device = list(pool.map(one, range(len(devices))))
    in_order = [by_device[i % len(devices)][i // len(devices)] for i in range(len(pieces))]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *in_order)


def _tables(simulated: Simulated, numbers: np.ndarray, seed: int) -> tuple[Any, ...]:
    """Arguments of the program for these tables: numbers, keys, truths and statistics."""
    keys = jax.vmap(functools.partial(jax.random.fold_in, named_key(seed, "chains")))(numbers)
    return numbers, keys, *jax.tree.map(lambda leaf: leaf[numbers], (simulated.truth, simulated.statistics))


def _each(kept: Snapshot, now: Mapping[str, np.ndarray]) -> dict[str, list[np.ndarray]]:
    """The saved values of each quantity so far, if any."""
    return {name: [kept.drawn[name]] if kept.drawn else [] for name in now}


def _ranked(
    order: Sequence[str], drawn: dict[str, Any], is_possible: np.ndarray, numbers: np.ndarray, seed: int
) -> dict[str, np.ndarray]:
    """The ranks of a batch (B, Q) and the other saved summaries of its draws."""
    size = len(drawn["divergences"])
    draws = np.concatenate(  # (B, Q, L)
        [np.moveaxis(drawn["draws"][name].reshape(size, drawn["draws"][name].shape[1], -1), 1, 2) for name in order],
        axis=1,
    )
    truth = np.concatenate([drawn["truth"][name].reshape(size, -1) for name in order], axis=1)
    is_finite = np.isfinite(draws).all(axis=(1, 2)) & np.isfinite(truth).all(axis=1)
    draws = np.where(is_finite[:, None, None], draws, 0.0)
    rank = [
        ranks.ranks(each, true, named_generator(seed, "rank_ties", number))
        for each, true, number in zip(draws, truth, numbers.tolist(), strict=True)
    ]
    ess, autocorrelation = ranks.effective(draws)
    return {
        "truth": truth,
        "rank": np.array(rank),
        "ess": ess,
        "autocorrelation": autocorrelation,
        "divergences": drawn["divergences"].astype(np.int64),
        "is_fitted": drawn["is_started"] & is_finite & is_possible,
    }


def _recovered(names: tuple[str, ...], kept: Snapshot, plan: Plan) -> Recovered:
    found = {name: each[0] for name, each in kept.drawn.items()}
    return Recovered(names, num_draws=plan.draws, seconds=kept.seconds, **found)
