"""The rates given the draws of all other parameters, where the model integrates them out.

The rates of all groups are stored at every draw up to `STORED` values. Of more groups they are stored at fewer draws,
evenly spaced in each chain. Each rate is then summarised at more draws than are stored: those of one group of each kind
are drawn again, given the other parameters, and stand for all groups that are alike.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from poolwise.counts.cells import Counts
from poolwise.inference.blocks import BLOCK, Blocks, over_rows
from poolwise.inference.streams import named_generator, named_key
from poolwise.model import effects
from poolwise.model.count_model import Model
from poolwise.model.priors import PriorValues
from poolwise.model.special import LARGEST, positive

STORED = 2**26  # values, groups times draws: 512 MiB
HELD = 2**24  # values of a block of draws
# kinds times draws of a summary, and least draws: of 1000 independent draws, a mean has an error of 3% of the sd
SUMMARISED, LEAST = 2**23, 1000

Draws = Mapping[str, np.ndarray]  # site -> (chain, draw), without the rates


def evenly_spaced(length: int, num: int) -> np.ndarray:
    """Indices of about `num` of `length` draws of a chain."""
    return np.linspace(0, length - 1, min(length, num)).round().astype(int)


def stored_draws(num_chains: int, length: int, num_groups: int) -> np.ndarray:
    """Indices of the draws of a chain at which rates are stored; all of them up to `STORED` values."""
    return evenly_spaced(length, max(1, STORED // (num_chains * num_groups)))


def draw(
    model: Model,
    counts: Counts,
    values: PriorValues,
    posterior: Draws,
    shape: tuple[int, int],
    *,
    seed: int,
    num_devices: int | None,
) -> np.ndarray:
    """The rates of all groups, (chain, stored draw, G), by independent draws given those of all other parameters.

    Parameters
    ----------
    shape : chains and draws of the posterior
    """
    kept = stored_draws(*shape, counts.num_groups)
    statistics = model.likelihood.statistics.of(counts)
    return _given(model, statistics, values, posterior, shape[0], kept, _Stream(seed, "rates"), num_devices)


def of_kinds(
    model: Model, counts: Counts, values: PriorValues, posterior: Draws, shape: tuple[int, int], *, seed: int
) -> Iterator[np.ndarray]:
    """The rates of one group of each kind of `alike`, in their order, in blocks (kind, chain, draw)."""
    kind = model.likelihood.statistics
    statistics = kind.of(counts)
    first = kind.alike(counts).first
    kept = evenly_spaced(shape[1], max(SUMMARISED // len(first), LEAST) // shape[0])
    size = max(1, HELD // (shape[0] * len(kept)))
    for number, begin in enumerate(range(0, len(first), size)):
        some = kind.of_groups(statistics, first[begin : begin + size])
        stream = _Stream(seed, "kinds", number)
        yield np.moveaxis(_given(model, some, values, posterior, shape[0], kept, stream, None), 2, 0)


def law_of_rate(model: Model, values: PriorValues, drawn: Draws, num: int) -> dict[str, np.ndarray]:
    """The law of a rate at draws (num,) of the other parameters: its parameters by name, each (num,)."""
    law = model.rate_law(values)
    given = dict(law.values) | {name: drawn[site] for name, site in law.drawn.items()}
    return {name: np.broadcast_to(np.minimum(given[name], LARGEST), num) for name in model.pooling.mixing.parameters}


class _Stream:
    """The random numbers of one use of `_given`, by block."""

    def __init__(self, seed: int, step: str, *part: int):
        self.seed, self.step, self.part = seed, step, part

    def generator(self, number: int) -> np.random.Generator:
        """For NumPy."""
        return named_generator(self.seed, f"{self.step}_given", *self.part, number)

    def keys(self, number: int, size: int) -> np.ndarray:
        """For JAX."""
        key = functools.reduce(jax.random.fold_in, (*self.part, number), named_key(self.seed, self.step))
        return np.asarray(jax.random.key_data(jax.random.split(key, size)))


def _given(
    model: Model,
    statistics: Mapping[str, np.ndarray],
    values: PriorValues,
    posterior: Draws,
    num_chains: int,
    kept: np.ndarray,
    stream: _Stream,
    num_devices: int | None,
) -> np.ndarray:
    """The rates (chain, kept draw, G) given the other parameters; each block of draws has its own random numbers."""
    num = num_chains * len(kept)
    drawn = {name: each[:, kept].reshape(num) for name, each in posterior.items()}
    law, mixing, likelihood = law_of_rate(model, values, drawn, num), model.pooling.mixing, model.likelihood
    others = {name: drawn[name] for name in _others(model)}
    size = max(1, min(BLOCK, HELD // len(statistics["group_total"])))

    def block(number: int) -> np.ndarray:
        rows = slice(number * size, min((number + 1) * size, num))
        by_group = {name: each[rows, None] for name, each in law.items()}
        given = dict(statistics)
        if model.effects:
            some = {name: each[rows] for name, each in others.items()}
            given["group_exposure"] = effects.group_exposures(likelihood.statistics, statistics, model.effects, some)
        gammas = mixing.rates_given(likelihood, given, by_group)
        if gammas is not None:
            return stream.generator(number).standard_gamma(gammas[0]) / gammas[1]
        keys = stream.keys(number, size)[: rows.stop - rows.start]
        return blocks.call(_program(model), number, keys, *(each[rows] for each in (*law.values(), *others.values())))

    with Blocks(num_devices, (dict(statistics),)) as blocks:
        lam = np.concatenate(blocks.each(block, range(-(-num // size))))
    return positive(lam).reshape(num_chains, len(kept), -1)


def _others(model: Model) -> tuple[str, ...]:
    """The parameters besides those of the law on which rates depend."""
    return (*model.likelihood.parameters, *map(effects.site_of, model.effects))


@functools.lru_cache(maxsize=16)
def _program(model: Model) -> Callable:
    """The compiled rates (B, G) of keys, parameters of the law and all others, (B,) each, and statistics."""
    mixing, likelihood = model.pooling.mixing, model.likelihood
    names = (*mixing.parameters, *_others(model))

    def rates(keys: jax.Array, *rest: Any) -> jax.Array:
        *drawn, statistics = rest

        def one(row: tuple) -> jax.Array:
            key, *drawn = row
            given = dict(zip(names, drawn, strict=True))
            law, params = ({name: given[name] for name in each.parameters} for each in (mixing, likelihood))
            return mixing.draw_rates(key, likelihood, model.exposed(statistics, given), law, params)

        return over_rows(one, (jax.random.wrap_key_data(keys), *drawn), (statistics,))

    return jax.jit(rates)
