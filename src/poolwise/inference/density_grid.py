"""A log density of one to three variables to independent draws: a grid that sees its modes, and rejection.

The density is interpolated between the nodes of a tensor grid, linearly in each variable. The interpolant q is a
mixture of products of triangular densities, one for each node, which can be drawn from exactly: first a node, then a
triangular offset in each variable. A draw x is kept with probability p(x) / (c q(x)). The kept draws are independent
draws of p, except for the mass of p above c q, which is at most `EXCESS` in total variation.

The grid is placed in three steps. A coarse grid covers a box in which the caller expects the density. Each of its
local maxima is followed, by ever smaller grids, to a mode and its width, and the axes take the nodes that the modes
need. Then the intervals in which the interpolant errs most, at random points of all cells, are halved until it errs
little. Mass that the interpolant lacks counts more than mass that it has in excess, which only costs proposals.

References
----------
Devroye (1986), Non-Uniform Random Variate Generation, chapter II.3 (rejection) and II.4 (mixtures).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

Array = NDArray[np.float64]
LogDensity = Callable[[Array], Array]  # (B, d) -> (B,)

COARSE = (2048, 64, 16)  # nodes of each axis of the first grid, of 1, 2 and 3 variables
LOCAL = (64, 32, 16)  # of a grid on the way to a mode
MOST_NODES = (4096, 320, 48)  # of an axis of the final grid
PROBES = (4, 4, 1)  # random points of a cell at which the interpolant is compared with the density
MODES = 8  # local maxima followed, the highest
DROP = 20.0  # of the log density from its top to the end of the grid: exp(-20) = 2e-9
EXTENDED, ROUNDS = 24, 60  # most extensions of a box, and most grids on the way to a mode
REFINED = 8  # most refinements of a grid
TOLERATED = (0.05, 0.05, 0.15)  # error of the interpolant, as a share of the mass
LACKING, LACKING_WEIGHT = 1.25, 100.0  # mass above this multiple of the interpolant counts that much more
RESOLVED = 0.5  # drop of the log density between neighbouring nodes at a mode whose width is seen
OFFSETS = np.array([0.7, 1.5, 2.5, 4.0, 6.0, 9.0])  # nodes about a mode, in its standard deviations
EXCESS = 1e-5  # of the mass, above c q


class NoGridError(ValueError):
    """A density that no grid holds."""


@dataclass(frozen=True)
class Grid:
    """A log density on a tensor grid.

    Attributes
    ----------
    axes : ascending nodes of each variable
    height : log density at the nodes, (len(axes[0]), ...)
    """

    axes: tuple[Array, ...]
    height: Array

    @cached_property
    def log_mass(self) -> Array:
        """Log of the mass of the interpolant that belongs to each node."""
        widths = [np.log(_hat_widths(axis)) for axis in self.axes]
        return self.height + reduce(np.add.outer, widths)

    @cached_property
    def log_total(self) -> float:
        """Log of the integral of the interpolant."""
        top = self.log_mass.max()
        return float(top + np.log(np.exp(self.log_mass - top).sum()))

    def draw(self, num: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """Independent draws of the interpolant, (num, d), and its normalised log density there, (num,)."""
        below = np.cumsum(np.exp(self.log_mass - self.log_mass.max()).ravel())
        node = np.searchsorted(below, rng.random(num) * below[-1], side="right")
        index = np.unravel_index(np.minimum(node, below.size - 1), self.height.shape)
        points = np.empty((num, len(self.axes)))
        cells, places = [], []
        for variable, axis in enumerate(self.axes):
            gaps = np.diff(axis)
            left, right = np.append(0.0, gaps)[index[variable]], np.append(gaps, 0.0)[index[variable]]
            goes_right = rng.random(num) * (left + right) >= left
            away = 1.0 - np.sqrt(rng.random(num))  # of a gap: triangular, densest at the node
            cells.append(np.where(goes_right, index[variable], index[variable] - 1))
            places.append(np.where(goes_right, away, 1.0 - away))
            points[:, variable] = axis[cells[-1]] + places[-1] * gaps[cells[-1]]
        return points, self.interpolated(cells, places) - self.log_total

    def interpolated(self, cells: Sequence[Array], places: Sequence[Array]) -> Array:
        """Log of the interpolant in cells (num,), at places 0..1 of each."""
        top = self.height.max()
        density = np.exp(self.height - top)
        total = np.zeros(len(places[0]))
        for corner in np.ndindex(*(2,) * len(self.axes)):
            weight = reduce(np.multiply, (p if high else 1 - p for p, high in zip(places, corner, strict=True)))
            total += weight * density[tuple(cell + high for cell, high in zip(cells, corner, strict=True))]
        with np.errstate(divide="ignore"):
            return top + np.log(total)


def limit_of(log_ratio: Array) -> float:
    """The log of the smallest c such that at most EXCESS of the mass of p lies above c q.

    Parameters
    ----------
    log_ratio : (num,), log of p / q at draws of q
    """
    top = log_ratio.max()
    ratio = np.sort(np.exp(log_ratio - top))[::-1]
    above = np.cumsum(ratio) - ratio * np.arange(1, len(ratio) + 1)  # sum of the ratios beyond each, less its own
    return float(top + np.log(ratio[np.searchsorted(above, EXCESS * ratio.sum(), side="right") - 1]))


def find(log_density: LogDensity, low: Array, high: Array) -> Grid:
    """The grid of a density whose modes lie in or near a box.

    Raises
    ------
    NoGridError
        if the density is nowhere finite in the box or does not fall off around it.
    """
    size = len(low) - 1
    coarse = _extended(log_density, _evaluated(log_density, _even(low, high, COARSE[size])))
    modes = _modes(log_density, coarse)
    axes = tuple(_axis_of(modes, variable) for variable in range(len(low)))
    grid = _extended(log_density, _evaluated(log_density, axes))
    rng = np.random.default_rng(0)
    for _ in range(REFINED):
        errors = _errors(log_density, grid, rng)
        if errors[0].sum() <= TOLERATED[size]:
            break
        pairs = zip(grid.axes, errors, strict=True)
        axes = tuple(_halved(*each, tolerated=TOLERATED[size], most=MOST_NODES[size]) for each in pairs)
        grid = _evaluated(log_density, axes)
    return _trimmed(grid)


def _even(low: Array, high: Array, nodes: int) -> tuple[Array, ...]:
    return tuple(np.linspace(*ends, nodes) for ends in zip(low, high, strict=True))


def _evaluated(log_density: LogDensity, axes: tuple[Array, ...]) -> Grid:
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    height = log_density(points.reshape(-1, len(axes))).reshape(points.shape[:-1])
    height = np.where(np.isfinite(height), height, -np.inf)
    if not np.isfinite(height.max()):
        raise NoGridError("the posterior density is zero wherever priors and counts lie")
    return Grid(axes, height)


def _extended(log_density: LogDensity, grid: Grid) -> Grid:
    """The grid, extended by half until the density at its faces is negligible."""
    for _ in range(EXTENDED):
        axes = []
        for variable, axis in enumerate(grid.axes):
            first, last = (np.take(grid.height, end, axis=variable).max() for end in (0, -1))
            limit, reach = grid.height.max() - DROP, (axis[-1] - axis[0]) / 2
            step = np.linspace(0, reach, 5 + 1)[1:]
            axis = np.append(axis[0] - step[::-1], axis) if first > limit else axis
            axes.append(np.append(axis, axis[-1] + step) if last > limit else axis)
        if all(len(new) == len(old) for new, old in zip(axes, grid.axes, strict=True)):
            return grid
        grid = _evaluated(log_density, tuple(axes))
    raise NoGridError("the posterior density does not fall off")


@dataclass(frozen=True)
class _Mode:
    """A mode, with the standard deviation of each variable given the others, both (d,), and its mass."""

    place: Array
    sd: Array
    log_mass: float


def _modes(log_density: LogDensity, coarse: Grid) -> list[_Mode]:
    """The modes above the local maxima of a coarse grid, without those of negligible mass."""
    is_top = (maximum_filter(coarse.height, size=3, mode="nearest") == coarse.height) & np.isfinite(coarse.height)
    tops = np.argwhere(is_top)[np.argsort(-coarse.height[is_top], kind="stable")][:MODES]
    found = [
        _mode_near(log_density, np.array([axis[i] for axis, i in zip(coarse.axes, top, strict=True)]), coarse)
        for top in tops
    ]
    modes = [mode for mode in found if mode is not None]
    if not modes:
        raise NoGridError("the posterior density has no mode of finite width")
    most = max(mode.log_mass for mode in modes)
    return [mode for mode in modes if mode.log_mass > most - DROP]


def _mode_near(log_density: LogDensity, centre: Array, coarse: Grid) -> _Mode | None:
    """The mode that ever smaller grids around a point lead to; None if its width is never seen."""
    num = LOCAL[len(centre) - 1]
    half = np.array([np.diff(axis).max() for axis in coarse.axes])
    for _ in range(ROUNDS):
        axes = _even(centre - half, centre + half, num)
        local = _evaluated(log_density, axes)
        top = np.unravel_index(np.argmax(local.height), local.height.shape)
        centre = np.array([axis[i] for axis, i in zip(axes, top, strict=True)])
        if any(i in (0, num - 1) for i in top):  # it lies further on
            continue
        drop = np.array([_drop(local.height, top, variable) for variable in range(len(centre))])
        if np.all((drop > 0) & (drop < 2 * RESOLVED)):
            sd = 2 * half / (num - 1) / np.sqrt(drop)
            return _Mode(centre, sd, float(local.height[top] + np.log(sd).sum()))
        half = half * 2.5 / (num - 1)
    return None


def _drop(height: Array, top: tuple[Any, ...], variable: int) -> float:
    """By how much both neighbours of a node lie below it together."""
    before, at, after = height[(*top[:variable], slice(top[variable] - 1, top[variable] + 2), *top[variable + 1 :])]
    return float(2 * at - before - after)


def _axis_of(modes: list[_Mode], variable: int) -> Array:
    """The nodes of one variable that the modes need."""
    offsets = np.concatenate([-OFFSETS[::-1], [0.0], OFFSETS])
    nodes = np.unique(np.concatenate([mode.place[variable] + mode.sd[variable] * offsets for mode in modes]))
    least = min(mode.sd[variable] for mode in modes) / 4
    return nodes[np.append(True, np.diff(nodes) > least)]


def _errors(log_density: LogDensity, grid: Grid, rng: np.random.Generator) -> list[Array]:
    """The error of the interpolant in each interval of each axis, as a share of its mass."""
    shape = tuple(len(axis) - 1 for axis in grid.axes)
    gaps = [np.diff(axis) for axis in grid.axes]
    cells = [each.ravel() for each in np.indices(shape)]
    log_volume = sum(np.log(gap)[cell] for gap, cell in zip(gaps, cells, strict=True))
    error = np.zeros(len(cells[0]))
    for _ in range(PROBES[len(shape) - 1]):
        places = [rng.random(len(cell)) for cell in cells]
        points = [
            axis[cell] + place * gap[cell]
            for axis, gap, cell, place in zip(grid.axes, gaps, cells, places, strict=True)
        ]
        found, given = (
            np.exp(each + log_volume - grid.log_total)
            for each in (log_density(np.stack(points, axis=1)), grid.interpolated(cells, places))
        )
        error += np.abs(found - given) + LACKING_WEIGHT * np.maximum(0.0, found - LACKING * given)
    table = np.nan_to_num(error / PROBES[len(shape) - 1]).reshape(shape)
    return [table.sum(axis=tuple(each for each in range(len(shape)) if each != v)) for v in range(len(shape))]


def _halved(axis: Array, error: Array, *, tolerated: float, most: int) -> Array:
    """The axis with its intervals of large error halved, up to `most` nodes."""
    order = np.argsort(-error, kind="stable")[: max(most - len(axis), 0)]
    chosen = order[error[order] > tolerated / (2 * len(error))]
    return np.sort(np.append(axis, (axis[chosen] + axis[chosen + 1]) / 2))


def _trimmed(grid: Grid) -> Grid:
    """The grid without the nodes at its ends where the density is negligible."""
    for variable in range(len(grid.axes)):
        others = tuple(each for each in range(len(grid.axes)) if each != variable)
        kept = np.flatnonzero(grid.height.max(axis=others) > grid.height.max() - DROP)
        part = slice(max(kept[0] - 1, 0), kept[-1] + 2)
        axes = (*grid.axes[:variable], grid.axes[variable][part], *grid.axes[variable + 1 :])
        grid = Grid(axes, grid.height[(*[slice(None)] * variable, part)])
    return grid


def _hat_widths(axis: Array) -> Array:
    """The integral of the hat function of each node."""
    gaps = np.diff(axis)
    return (np.append(0.0, gaps) + np.append(gaps, 0.0)) / 2
