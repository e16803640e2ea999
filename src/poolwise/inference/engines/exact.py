"""A model and its data to independent draws of the posterior: no warm-up, no Markov chain.

The parameters that are not rates are one to three numbers. Their posterior, with the rates integrated out, is put on a
grid and drawn from by rejection (`inference.density_grid`); the rates are then drawn given each of these draws. So all
draws are independent, and their law differs from the posterior by a total variation distance that is stated.

Proposals and rates come in blocks of fixed size, each with its own random numbers, which the devices share. The bits of
the draws therefore depend on neither the number of devices nor on how many draws are asked for beyond them. A fit takes
less time than a checkpoint would save, so none is written: a killed fit is drawn again, to the same bits.
"""

import functools
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np
from numpyro.distributions import biject_to
from numpyro.infer.util import constrain_fn, potential_energy

from poolwise.counts.cells import Counts
from poolwise.counts.statistics import Arrays
from poolwise.errors import FitError
from poolwise.inference import density_grid
from poolwise.inference.density_grid import NoGridError
from poolwise.inference.engines.base import Engine, Fit, Progress
from poolwise.inference.settings import Device, Sampler
from poolwise.inference.snapshot import Snapshot
from poolwise.inference.streams import named_generator, named_key
from poolwise.model.count_model import AUXILIARY, Model
from poolwise.model.marginal_quadrature import LARGEST
from poolwise.model.priors import GAMMAS, PriorValues, law
from poolwise.model.special import positive

BLOCK, SMALL = 4096, 512  # points of one call; a call of fewer points is padded to one of these
WORK = 2**20  # values held at once in a call
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
    statistics = model.likelihood.statistics.of(counts)
    num, shape = sampler.num_chains * sampler.num_samples, (sampler.num_chains, sampler.num_samples)
    began = time.perf_counter()
    with _Blocks(device.num_devices, (statistics, values)) as blocks:
        _compile(model, blocks)
        compiled = time.perf_counter()
        points, log_density, log_ratio = _hyperparameters(model, blocks, num, seed)
        drawn = blocks.mapped(_programs(model).sites, points)
        if not model.pooling.is_shared:
            drawn["lam"] = _rates(model, blocks, drawn, num, seed)
    posterior = {name: drawn[name].reshape(*shape, *drawn[name].shape[1:]) for name in sorted(drawn)}
    stats = {"lp": log_density.reshape(shape), "log_ratio": log_ratio.reshape(shape)}
    whole = sampler.num_samples
    on_progress(Progress("sampling", whole, whole, 0, None, posterior=lambda: posterior))
    return Fit(posterior, stats, {"compile": compiled - began, "sample": time.perf_counter() - compiled})


def refusal(model: Model) -> str:
    """Why the rates of a model cannot be integrated out, or its other parameters not put on a grid."""
    families = dict(model.families)
    if not model.pooling.is_shared:
        if not model.likelihood.has_marginal:
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


class _Blocks:
    """Points and draws in blocks of `BLOCK`, which the devices share: a block has the same bits on any of them."""

    def __init__(self, num_devices: int | None, args: tuple[Any, PriorValues]):
        self.args = args
        self._given = [jax.device_put(args, each) for each in jax.devices()[:num_devices]]
        self.num_devices = len(self._given)
        self._pool = ThreadPoolExecutor(self.num_devices)

    def __enter__(self) -> "_Blocks":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def each(self, task: Callable[[int], Any], numbers: Iterable[int]) -> list[Any]:
        """The results of numbered tasks, in their order."""
        return list(self._pool.map(task, numbers))

    def call(self, program: Callable, number: int, *block: np.ndarray) -> Any:
        """A program at up to `BLOCK` rows, and the statistics and values, on the device of this number."""
        num = len(block[0])
        size = SMALL if num <= SMALL else BLOCK
        filled = (np.pad(each, [(0, size - num)] + [(0, 0)] * (each.ndim - 1), mode="edge") for each in block)
        found = jax.device_get(program(*filled, *self._given[number % len(self._given)]))
        return jax.tree.map(lambda leaf: leaf[:num], found)

    def mapped(self, program: Callable, *rows: np.ndarray) -> Any:
        """A program at any number of rows."""
        parts = self.each(
            lambda number: self.call(program, number, *(each[number * BLOCK : (number + 1) * BLOCK] for each in rows)),
            range(-(-len(rows[0]) // BLOCK)),
        )
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


class _Programs(NamedTuple):
    """Compiled programs of B rows, statistics and prior values."""

    log_density: Callable  # of unconstrained points (B, d): (B,)
    sites: Callable  # of the same: site -> (B,), with the sites derived from them
    rates: Callable  # of keys, mu, shape and the parameters of the likelihood, (B,) each: (B, G)


@functools.lru_cache(maxsize=16)
def _programs(model: Model) -> _Programs:
    density: Any = model.pooling.centred if model.pooling.is_shared else model.pooling.marginal

    def joint(statistics: Arrays, values: PriorValues) -> None:
        density(model.prior(values), statistics, model.likelihood)

    def named(point: jax.Array) -> dict[str, jax.Array]:
        return {site: point[i] for i, site in enumerate(_sites(model))}

    def over_rows(one: Callable, rows: Any, args: tuple) -> Any:
        size = max(1, WORK // max(each.size for each in jax.tree.leaves(args)))
        return jax.lax.map(one, rows, batch_size=min(size, BLOCK))

    def log_density(points: jax.Array, *args: Any) -> jax.Array:
        return over_rows(lambda point: -potential_energy(joint, args, {}, named(point)), points, args)

    def sites(points: jax.Array, *args: Any) -> dict[str, jax.Array]:
        def one(point: jax.Array) -> dict[str, jax.Array]:
            found = constrain_fn(joint, args, {}, named(point), return_deterministic=True)
            return {name: value for name, value in found.items() if name not in AUXILIARY}

        return over_rows(one, points, args)

    def rates(keys: jax.Array, mu: jax.Array, shape: jax.Array, *rest: Any) -> jax.Array:
        *params, statistics, values = rest
        names = model.likelihood.parameters

        def one(row: tuple) -> jax.Array:
            key, mu, shape, *params = row
            return model.likelihood.draw_rates(key, statistics, mu, shape, dict(zip(names, params, strict=True)))

        return over_rows(one, (jax.random.wrap_key_data(keys), mu, shape, *params), (statistics, values))

    return _Programs(jax.jit(log_density), jax.jit(sites), jax.jit(rates))


def _compile(model: Model, blocks: _Blocks) -> None:
    """Compile the log density and the sites for all devices."""
    if _sites(model):
        log_density, sites, _ = _programs(model)
        nowhere = np.zeros((BLOCK, len(_sites(model))))

        def compile_for(device: int) -> None:
            for num in (1, BLOCK):
                blocks.call(log_density, device, nowhere[:num])
            blocks.call(sites, device, nowhere)

        blocks.each(compile_for, range(blocks.num_devices))


def _hyperparameters(model: Model, blocks: _Blocks, num: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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


def _rates(model: Model, blocks: _Blocks, drawn: dict[str, np.ndarray], num: int, seed: int) -> np.ndarray:
    """The rates (num, G) given draws (num,) of all other parameters."""
    statistics, values = blocks.args
    law_of_rate = model.rate_law(values)
    given = dict(law_of_rate.values) | {name: drawn[site] for name, site in law_of_rate.drawn.items()}
    mu, shape = np.broadcast_to(given["mu"], num), np.broadcast_to(np.minimum(given["shape"], LARGEST), num)
    params = model.likelihood.params_of(drawn)
    key = named_key(seed, "rates")

    def block(number: int) -> np.ndarray:
        rows = slice(number * BLOCK, min((number + 1) * BLOCK, num))
        gammas = model.likelihood.rates_given(statistics, mu[rows, None], shape[rows, None])
        if gammas is not None:
            rng = named_generator(seed, "rates_given", number)
            return rng.standard_gamma(gammas[0]) / gammas[1]
        keys = jax.random.key_data(jax.random.split(jax.random.fold_in(key, number), BLOCK))[: rows.stop - rows.start]
        given = mu[rows], shape[rows], *(params[name][rows] for name in model.likelihood.parameters)
        return blocks.call(_programs(model).rates, number, np.asarray(keys), *given)

    return positive(np.concatenate(blocks.each(block, range(-(-num // BLOCK)))))


EXACT_ENGINE = Engine("exact", sample, refusal=refusal)
