"""A model and its data to independent draws of the posterior: no warm-up, no Markov chain.

The parameters that are not rates are one to three numbers. Their posterior, with the rates integrated out, is put on a
grid and drawn from by rejection (`inference.density_grid`); the rates are then drawn given each of these draws. So all
draws are independent, and their law differs from the posterior by a total variation distance that is stated.

Groups that are alike share every term of that posterior, so its cost follows the distinct groups.

Proposals and rates come in blocks of fixed size, each with its own random numbers, which the devices share. The bits of
the draws therefore depend on neither the number of devices nor on how many draws are asked for beyond them. A fit takes
less time than a checkpoint would save, so none is written: a killed fit is drawn again, to the same bits.
"""

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from numpyro.distributions import biject_to
from numpyro.infer.util import constrain_fn, potential_energy

from poolwise.counts.cells import Counts
from poolwise.counts.statistics import Arrays
from poolwise.errors import FitError
from poolwise.inference import density_grid, rates
from poolwise.inference.blocks import BLOCK, Blocks, over_rows
from poolwise.inference.density_grid import NoGridError
from poolwise.inference.engines.base import Engine, Fit, Progress
from poolwise.inference.settings import Device, Sampler
from poolwise.inference.snapshot import Snapshot
from poolwise.inference.streams import named_generator
from poolwise.model.count_model import AUXILIARY, Model
from poolwise.model.effects import BETA
from poolwise.model.priors import GAMMAS, PriorValues, law

MOST = 3  # parameters on a grid
TAIL = 1e-3  # of each prior, outside the first box on either side
AROUND = 3.0  # units of the unconstrained parameter around what the counts show, in the first box
MOST_TRIED = 50  # proposals per draw


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
    """Independent draws, all in one chunk, so nothing is resumed; see `Sample`."""
    kind = model.likelihood.statistics
    given = (kind.of(counts) if model.pooling.is_shared else kind.of_kinds(counts), values)
    num, shape = sampler.num_chains * sampler.num_samples, (sampler.num_chains, sampler.num_samples)
    began = time.perf_counter()
    with Blocks(device.num_devices, given) as blocks:
        _compile(model, blocks)
        compiled = time.perf_counter()
        points, log_density, log_ratio = _hyperparameters(model, blocks, num, seed)
        drawn = blocks.mapped(_programs(model).sites, points)
    posterior = {name: each.reshape(shape) for name, each in drawn.items()}
    others = dict(posterior)
    if not model.pooling.is_shared:
        num_devices = device.num_devices
        posterior["lam"] = rates.draw(model, counts, values, posterior, shape, seed=seed, num_devices=num_devices)
    posterior = dict(sorted(posterior.items()))
    stats = {"lp": log_density.reshape(shape), "log_ratio": log_ratio.reshape(shape)}
    whole = sampler.num_samples
    on_progress(Progress("sampling", whole, whole, 0, None, posterior=lambda: others or posterior))
    return Fit(posterior, stats, {"compile": compiled - began, "sample": time.perf_counter() - compiled})


def refusal(model: Model) -> str:
    """Why the rates of a model cannot be integrated out, or its other parameters not put on a grid."""
    families = dict(model.families)
    if BETA.name in families:
        return "sampler=exact draws no effects of covariates; use sampler=nuts."
    if not model.pooling.is_shared:
        if not model.pooling.mixing.integrates(model.likelihood):
            return f"sampler=exact cannot integrate out the rates of {model.name} counts; use sampler=nuts."
        if not model.pooling.has_population and families["lam"] not in GAMMAS:
            return (
                f"sampler=exact cannot integrate out rates with a {families['lam']} prior; use prior/lam=gamma or "
                "sampler=nuts."
            )
    if len(_sites(model)) > MOST:
        return f"sampler=exact draws from at most {MOST} parameters besides the rates; use sampler=nuts."
    return ""


def _sites(model: Model) -> tuple[str, ...]:
    """The parameters that are not integrated out."""
    return tuple(site for site, _ in model.families if site != "lam" or model.pooling.is_shared)


class _Programs(NamedTuple):
    """Compiled programs of B rows, statistics and prior values."""

    log_density: Callable  # of unconstrained points (B, d): (B,)
    sites: Callable  # of the same: site -> (B,), with the sites derived from them


@functools.lru_cache(maxsize=16)
def _programs(model: Model) -> _Programs:
    density: Any = model.pooling.centred if model.pooling.is_shared else model.pooling.marginal

    def joint(statistics: Arrays, values: PriorValues) -> None:
        density(model.prior(values), statistics, model.likelihood)

    def named(point: jax.Array) -> dict[str, jax.Array]:
        return {site: point[i] for i, site in enumerate(_sites(model))}

    def log_density(points: jax.Array, *args: Any) -> jax.Array:
        return over_rows(lambda point: -potential_energy(joint, args, {}, named(point)), points, args)

    def sites(points: jax.Array, *args: Any) -> dict[str, jax.Array]:
        def one(point: jax.Array) -> dict[str, jax.Array]:
            found = constrain_fn(joint, args, {}, named(point), return_deterministic=True)
            return {name: value for name, value in found.items() if name not in AUXILIARY}

        return over_rows(one, points, args)

    return _Programs(jax.jit(log_density), jax.jit(sites))


def _compile(model: Model, blocks: Blocks) -> None:
    """Compile the log density and the sites for all devices."""
    if _sites(model):
        log_density, sites = _programs(model)
        nowhere = np.zeros((BLOCK, len(_sites(model))))

        def compile_for(device: int) -> None:
            for num in (1, BLOCK):
                blocks.call(log_density, device, nowhere[:num])
            blocks.call(sites, device, nowhere)

        blocks.each(compile_for, range(blocks.num_devices))


def _hyperparameters(model: Model, blocks: Blocks, num: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Independent draws (num, d) of the unconstrained parameters, their log density, and their log ratio (num,).

    The ratio is that of the density to the proposal, relative to its bound: a draw where it is above 1 is too rare.
    """
    if not _sites(model):
        return np.zeros((num, 0)), np.zeros(num), np.zeros(num)
    program = _programs(model).log_density
    try:
        grid = density_grid.find(functools.partial(blocks.mapped, program), *_box(model, *blocks.args))
    except NoGridError as error:
        raise FitError(
            f"sampler=exact: {error}. Compare prior.* with the rates in the data, or use sampler=nuts."
        ) from None

    def attempt(number: int) -> tuple[np.ndarray, ...]:
        rng = named_generator(seed, "proposals", number)
        points, log_q = grid.draw(BLOCK, rng)
        height = blocks.call(program, number, points)
        return points, height, height - log_q, np.log(rng.random(BLOCK))

    first = attempt(0)
    limit = density_grid.limit_of(first[2])

    def accepted(points: np.ndarray, height: np.ndarray, log_ratio: np.ndarray, log_place: np.ndarray) -> tuple:
        is_kept = log_place < log_ratio - limit
        return points[is_kept], height[is_kept], log_ratio[is_kept] - limit

    kept = [accepted(*first)]
    while (found := sum(len(each[0]) for each in kept)) < num:
        if len(kept) > MOST_TRIED * (1 + num / BLOCK):
            raise FitError("sampler=exact: the grid does not follow the posterior density. Use sampler=nuts.")
        more = max(1, round((num - found) / max(found / len(kept), 1)))
        kept += [accepted(*each) for each in blocks.each(attempt, range(len(kept), len(kept) + more))]
    points, height, log_ratio = (np.concatenate(each)[:num] for each in zip(*kept, strict=True))
    return points, height, log_ratio


def _box(model: Model, statistics: Any, values: PriorValues) -> tuple[np.ndarray, np.ndarray]:
    """A box of the unconstrained parameters, (d,) and (d,): the bulk of each prior, and around what the counts show."""
    shown = model.pooling.shown_by(statistics)
    ends = []
    for site, family in model.families:
        if site in _sites(model):
            unconstrained = biject_to(model.prior(values)[site].support).inv
            bulk = np.asarray(unconstrained(law(family, values[site]).ppf([TAIL, 1 - TAIL])))
            around = np.ravel(unconstrained(shown[site])) if site in shown else np.array([])
            around = around[np.isfinite(around)]
            ends.append([min([*bulk, *(around - AROUND)]), max([*bulk, *(around + AROUND)])])
    low, high = np.array(ends).T
    return low, high


EXACT_ENGINE = Engine("exact", sample, refusal=refusal)
