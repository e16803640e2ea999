"""A model and the design of a table to simulated tables and their true parameters.

The design is the groups, rows and exposures of a table, without its counts. A simulation draws the parameters from the
prior, then every row's count from the generative form of the model. It does not depend on the parameterisation, so
all parameterisations fit the same tables. Simulation i does not depend on the number of simulations.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from numpyro import handlers

from poolwise.counts.cells import Counts
from poolwise.counts.statistics import filled_up
from poolwise.inference.streams import named_key
from poolwise.model.count_model import Model
from poolwise.model.priors import PriorValues

LARGEST = 2.0**53  # largest count that float64 holds exactly, as in `data`
BLOCK = 2**22  # counts held at once


@dataclass(frozen=True, eq=False)
class Simulated:
    """Simulated tables of one design.

    Attributes
    ----------
    truth : site -> (M,), or (M, G) for rates that differ by group
    statistics : the sufficient statistics that differ between tables, (M, ...); distinct counts are padded to the
        largest number of any table with zeros of no row
    design : the sufficient statistics shared by all tables
    is_possible : (M,), whether every parameter is finite and no count is beyond 2**53
    """

    truth: dict[str, np.ndarray]
    statistics: dict[str, np.ndarray]
    design: dict[str, np.ndarray]
    is_possible: np.ndarray


def simulate(model: Model, counts: Counts, values: PriorValues, *, seed: int, simulations: int) -> Simulated:
    """Draw parameters from the prior, and for each a table with the groups, rows and exposures of `counts`."""
    (group, exposure, _), x = counts.rows(), counts.row_x
    draw = _program(model, counts.num_groups)
    root = named_key(seed, "truth")
    truths, possible = [], []
    tables: list[dict[str, np.ndarray]] = []
    size = max(1, BLOCK // len(group))
    for begin in range(0, simulations, size):
        numbers = np.arange(begin, min(begin + size, simulations))
        drawn = {name: np.asarray(each) for name, each in draw(numbers, root, group, exposure, x, values).items()}
        rows = drawn.pop("y").astype(float)  # (B, N)
        is_possible = np.all((rows >= 0) & (rows <= LARGEST), axis=1)
        for each in drawn.values():
            is_possible &= np.all(np.isfinite(each.reshape(len(each), -1)), axis=1)
        truths.append(drawn)
        possible.append(is_possible)
        counted = np.where(is_possible[:, None], rows, 0.0)
        tables += [model.likelihood.statistics.of_table(each, group, exposure, x) for each in counted]
    return Simulated(
        truth={name: np.concatenate([each[name] for each in truths]) for name in truths[0]},
        statistics=_stacked(tables),
        design=model.likelihood.statistics.design(counts),
        is_possible=np.concatenate(possible),
    )


@functools.lru_cache(maxsize=16)
def _program(model: Model, num_groups: int) -> Callable:
    """The compiled `draw(numbers, key, group, exposure, x, values)`: parameters and counts of these simulations."""

    def draw(
        numbers: jax.Array, root: jax.Array, group: jax.Array, exposure: jax.Array, x: jax.Array, values: Any
    ) -> dict[str, jax.Array]:
        def one(number: jax.Array) -> dict[str, jax.Array]:
            seeded = handlers.seed(model.generative, jax.random.fold_in(root, number))
            sites = handlers.trace(seeded).get_trace(group, exposure, values, num_groups, x=x)
            return {name: site["value"] for name, site in sites.items() if site["type"] == "sample"}

        return jax.lax.map(one, numbers)

    return jax.jit(draw)


def _stacked(tables: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The statistics of all tables, (M, ...), padded to the longest."""
    longest = {name: max(each[name].size for each in tables) for name in tables[0]}
    filled = [filled_up(each, to=lambda name, _: longest[name]) for each in tables]
    return {name: np.stack([each[name] for each in filled]) for name in filled[0]}
