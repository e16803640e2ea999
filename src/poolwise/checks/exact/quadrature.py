"""Peaked functions to trapezoid grids in t, u = centre + BEND scale sinh(t / BEND).

Near the mode u is almost linear in t; far from it u is exponential, so tails that fall exponentially in u fall doubly
exponentially in t. Functions take and return arrays (..., K) of points in u.

A function of one outer variable may have several modes: a scan over `SCAN` finds them, and t is the sum of their
coordinates, so that the grid is as dense at each mode as the grid of that mode alone.

References
----------
Trefethen and Weideman (2014), SIAM Review 56(3), doi:10.1137/130932132.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

BEND = 4.0
WIDEST = 0.5  # largest scale of a grid: exp(-lam) is this narrow in log lam
DROP = 40.0  # a grid ends where the log integrand has fallen by this much
# of u, where modes are sought: 0.27 apart near 0, 7 at the ends. The logarithm of a density has features of order 1
SCAN = 4 * np.sinh(np.linspace(-4, 4, 121))
MOST_MODES = 6  # where rounding makes more of them, no grid would help
FARTHEST = 170.0  # larger logarithms are clipped: squares and ratios remain finite floats

Array = np.ndarray


@dataclass(frozen=True)
class Place:
    """Centre, scale and ends of grids, each (...)."""

    centre: Array
    scale: Array
    left: Array  # distance of the end from the centre
    right: Array

    def grid(self, step: float) -> tuple[Array, Array]:
        """Points and log weights of trapezoid sums, (..., K)."""
        bend = BEND * self.scale
        first, last = (np.ceil(BEND * np.max(np.arcsinh(each / bend)) / step) for each in (self.left, self.right))
        t = step * np.arange(-first, last + 1) / BEND
        return self.centre[..., None] + bend[..., None] * np.sinh(t), np.log(step * np.cosh(t) * self.scale[..., None])


@dataclass(frozen=True)
class Modes:
    """Centres and scales of the modes of one function, (M,), and the ends of the one grid that holds them all."""

    centre: Array
    scale: Array
    first: float
    last: float

    def grid(self, step: float) -> tuple[Array, Array]:
        """Points and log weights of a trapezoid sum, (K,)."""
        ends = self._t(np.array([self.first, self.last])) / step
        t = step * np.arange(np.floor(ends[0]), np.ceil(ends[1]) + 1)
        low, high = np.full(t.shape, self.first - 1.0), np.full(t.shape, self.last + 1.0)
        while (self._t(low[:1]) > t[0]) or (self._t(high[-1:]) < t[-1]):
            low, high = 2 * low - high, 2 * high - low
        for _ in range(80):  # bisection: t is increasing in u
            middle = (low + high) / 2
            is_below = self._t(middle) < t
            low, high = np.where(is_below, middle, low), np.where(is_below, high, middle)
        u = (low + high) / 2
        density = np.sum(1 / np.hypot(self.scale, (u[:, None] - self.centre) / BEND), axis=-1)  # dt / du
        return u, np.log(step / density)

    def _t(self, u: Array) -> Array:
        return BEND * np.sum(np.arcsinh((u[:, None] - self.centre) / (BEND * self.scale)), axis=-1)


def modes(log_f: Callable[[Array], Array], scan: Array = SCAN) -> Modes:
    """The highest modes of a function that takes (K,), of those that reach within `DROP` of the highest."""
    y = np.concatenate([[-np.inf], log_f(scan), [-np.inf]])
    y = np.where(np.isnan(y), -np.inf, y)
    is_mode = (y[1:-1] >= y[:-2]) & (y[1:-1] > y[2:]) & (y[1:-1] > y.max() - DROP)
    at, wide = np.flatnonzero(is_mode), np.concatenate([[-FARTHEST], scan, [FARTHEST]])
    at = at[np.argsort(-y[1 + at])][:MOST_MODES]
    places = [place_around(log_f, *peak(log_f, (), wide[i], wide[i + 2])) for i in at]
    centre, scale = (np.array([float(getattr(each, name)) for each in places]) for name in ("centre", "scale"))
    return Modes(
        centre=centre,
        scale=scale,
        first=min(float(each.centre - each.left) for each in places),
        last=max(float(each.centre + each.right) for each in places),
    )


def peak(
    log_f: Callable[[Array], Array], shape: tuple[int, ...], low: float = -100.0, high: float = 100.0
) -> tuple[Array, Array]:
    """Mode and scale of functions that are unimodal from `low` to `high`, by zooming in; log_f takes (..., K)."""
    left_end, right_end = np.full(shape, low), np.full(shape, high)
    while True:
        gap = (right_end - left_end) / 8
        u = left_end[..., None] + 8 * gap[..., None] * np.linspace(0, 1, 9)
        y = log_f(u)
        best = np.clip(np.argmax(y, axis=-1), 1, 7)[..., None]
        left, top, right = (np.take_along_axis(y, best + k, axis=-1)[..., 0] for k in (-1, 0, 1))
        centre = np.take_along_axis(u, best, axis=-1)[..., 0]
        is_open = ~(y.max(axis=-1) - np.minimum(left, right) < 1) & (gap > 1e-9)
        if not is_open.any():
            break
        left_end = np.where(is_open, centre - gap, left_end)
        right_end = np.where(is_open, centre + gap, right_end)
    curve = np.maximum(2 * top - left - right, 1e-6)
    return centre + gap * np.clip((right - left) / (2 * curve), -1, 1), gap / np.sqrt(curve)


def place_around(log_f: Callable[[Array], Array], centre: Array, scale: Array) -> Place:
    """Grids around modes, out to where log_f has fallen by `DROP`; the steeper side sets the scale."""
    top, scale = log_f(centre[..., None])[..., 0], np.minimum(scale, WIDEST)

    def fall(distance: Array) -> Array:
        return top - log_f((centre + distance)[..., None])[..., 0]

    at_three = np.maximum(fall(-3 * scale), fall(3 * scale))
    scale = 3 * scale / np.sqrt(2 * np.maximum(at_three, 4.5))
    reach = []
    for side in (-1, 1):
        distance = 0.8 * np.sqrt(2 * DROP) * scale
        while (is_open := (fall(side * distance) < DROP) & (distance < FARTHEST)).any():
            distance = np.where(is_open, 1.3 * distance, distance)
        reach.append(distance)
    return Place(centre, scale, *reach)


def log_sum(x: Array) -> Array:
    """Log of the sum of exponentials over the last axis, without SciPy's copies."""
    top = x.max(axis=-1)
    return top + np.log(np.exp(x - top[..., None]).sum(axis=-1))
