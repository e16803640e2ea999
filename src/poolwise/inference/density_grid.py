"""A log density of one to three variables to independent draws: a grid that sees its modes, and rejection.

The density is interpolated between the nodes of a tensor grid, linearly in each variable. The interpolant is a mixture
of products of triangular densities, one a node, so it is drawn from without error: a node, then a triangular offset in
each variable. A draw x is kept with probability p(x) / (c q(x)), q the interpolant, which makes the kept draws
independent draws of p, but for the mass of p above c q: at most `EXCESS`, a total variation distance.

The grid is placed in three steps. A coarse grid covers a box in which the caller expects the density. Each of its local
maxima is followed, by ever smaller grids, to a mode and its width. The axes then take the nodes that the modes need, and
are placed again by the marginal densities that the grid itself shows: linear interpolation of a density errs least where
nodes are as dense as its cube root.

References
----------
Devroye (1986), Non-Uniform Random Variate Generation, chapter II.3 (rejection) and II.4 (mixtures).
de Boor (1973), Good approximation by splines with variable knots: nodes by a root of the density.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

Array = NDArray[np.float64]
LogDensity = Callable[[Array], Array]  # (B, d) -> (B,)

COARSE = (2048, 64, 16)  # nodes of each axis of the first grid, of 1, 2 and 3 variables
LOCAL = (64, 16, 8)  # of the grid around a local maximum
NODES = (1024, 64, 25)  # of the final grid
MODES = 8  # local maxima followed, the highest
DROP = 20.0  # of the log density from its top to the end of the grid: exp(-20) = 2e-9
EXTENDED, ROUNDS = 24, 60  # most extensions of a box, and most grids around a local maximum
REFINED = 2  # placements of the axes by the marginal densities
RESOLVED = 0.5  # drop of the log density between neighbouring nodes at a mode whose width is seen
OFFSETS = np.array([0.7, 1.5, 2.5, 4.0, 6.0, 9.0])  # nodes about a mode, in its standard deviations
EXCESS = 1e-4  # of the mass, above c q


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

    def marginal(self, variable: int) -> Array:
        """Density of one variable at its nodes, up to a factor."""
        others = tuple(each for each in range(len(self.axes)) if each != variable)
        mass = np.exp(self.log_mass - self.log_mass.max()).sum(axis=others)
        return mass / _hat_widths(self.axes[variable])

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
        return points, self._interpolated(cells, places) - self.log_total

    def _interpolated(self, cells: Sequence[Array], places: Sequence[Array]) -> Array:
        """Log of the interpolant in cells (num,), at places 0..1 of each."""
        top = self.height.max()
        density = np.exp(self.height - top)
        total = np.zeros(len(places[0]))
        for corner in np.ndindex(*(2,) * len(self.axes)):
            weight = reduce(np.multiply, (p if high else 1 - p for p, high in zip(places, corner, strict=True)))
            total += weight * density[tuple(cell + high for cell, high in zip(cells, corner, strict=True))]
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
    axes = tuple(_axis_of(modes, coarse.axes[variable], variable) for variable in range(len(low)))
    grid = _extended(log_density, _evaluated(log_density, axes))
    for nodes in (*[COARSE[size]] * (REFINED - 1), NODES[size]):
        grid = _evaluated(log_density, tuple(_replaced(grid, variable, nodes) for variable in range(len(low))))
    return grid


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
    place: Array  # (d,)
    sd: Array  # (d,), conditional
    log_mass: float


def _modes(log_density: LogDensity, coarse: Grid) -> list[_Mode]:
    """The modes above the local maxima of a coarse grid, without those of negligible mass."""
    is_top = (maximum_filter(coarse.height, size=3, mode="nearest") == coarse.height) & np.isfinite(coarse.height)
    tops = np.argwhere(is_top)
    tops = tops[np.argsort(-coarse.height[tuple(tops.T)], kind="stable")][:MODES]
    centre = np.array([[axis[i] for axis, i in zip(coarse.axes, top, strict=True)] for top in tops])
    half = np.tile([np.diff(axis).max() for axis in coarse.axes], (len(tops), 1))
    found: list[_Mode] = []
    steps = np.array(list(np.ndindex(*(LOCAL[centre.shape[1] - 1],) * centre.shape[1])))
    steps = steps / (LOCAL[centre.shape[1] - 1] - 1) * 2 - 1
    for _ in range(ROUNDS):
        local = centre[:, None] + half[:, None] * steps  # (K, n^d, d)
        heights = log_density(local.reshape(-1, local.shape[2])).reshape(local.shape[:2])
        best = np.argmax(np.where(np.isnan(heights), -np.inf, heights), axis=1)
        is_open = np.zeros(len(centre), bool)
        for k in range(len(centre)):
            mode, is_inside = _mode_in(centre[k], half[k], heights[k], best[k], steps)
            centre[k] = local[k, best[k]]
            if mode is None:
                is_open[k] = True
                half[k] *= 2.5 / (LOCAL[centre.shape[1] - 1] - 1) if is_inside else 1.0
            else:
                found.append(mode)
        centre, half = centre[is_open], half[is_open]
        if not len(centre):
            break
    if not found:
        raise NoGridError("the posterior density has no mode of finite width")
    most = max(mode.log_mass for mode in found)
    return [mode for mode in found if mode.log_mass > most - DROP]


def _mode_in(
    centre: Array, half: Array, heights: Array, best: int, steps: Array
) -> tuple[_Mode | None, bool]:
    """The mode of a local grid if its width is seen, and whether it lies inside."""
    num = LOCAL[len(centre) - 1]
    table = heights.reshape((num,) * len(centre))
    index = np.unravel_index(best, table.shape)
    if any(i in (0, num - 1) for i in index):
        return None, False
    spacing, sd = 2 * half / (num - 1), np.empty(len(centre))
    for variable, i in enumerate(index):
        line = table[(*index[:variable], slice(i - 1, i + 2), *index[variable + 1 :])]
        drop = 2 * line[1] - line[0] - line[2]
        if not drop < 2 * RESOLVED or (drop <= 0):
            return None, True
        sd[variable] = spacing[variable] / np.sqrt(drop)
    place = centre + half * steps[best]
    return _Mode(place, sd, float(table[index] + np.log(sd).sum())), True


def _axis_of(modes: list[_Mode], coarse: Array, variable: int) -> Array:
    """The nodes of one variable that the modes need."""
    offsets = np.concatenate([-OFFSETS[::-1], [0.0], OFFSETS])
    nodes = np.concatenate([mode.place[variable] + mode.sd[variable] * offsets for mode in modes])
    nodes = np.unique(nodes)
    least = min(mode.sd[variable] for mode in modes) / 4
    return nodes[np.append(True, np.diff(nodes) > least)]


def _replaced(grid: Grid, variable: int, num: int) -> Array:
    """Nodes as dense as the cube root of the marginal density, over the range where it is not negligible."""
    axis, density = grid.axes[variable], grid.marginal(variable)
    others = tuple(each for each in range(len(grid.axes)) if each != variable)
    is_kept = np.flatnonzero(grid.height.max(axis=others) > grid.height.max() - DROP)
    first, last = max(is_kept[0] - 1, 0), min(is_kept[-1] + 1, len(axis) - 1)
    axis, root = axis[first : last + 1], np.cbrt(density[first : last + 1])
    below = np.append(0.0, np.cumsum(np.diff(axis) * (root[1:] + root[:-1]) / 2))
    return np.interp(np.linspace(0, below[-1], num), below, axis)


def _hat_widths(axis: Array) -> Array:
    """The integral of the hat function of each node."""
    gaps = np.diff(axis)
    return (np.append(0.0, gaps) + np.append(gaps, 0.0)) / 2
