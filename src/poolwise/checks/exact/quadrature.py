"""Peaked functions to trapezoid grids in t, u = centre + BEND scale sinh(t / BEND).

Near the mode u is almost linear in t; far from it u is exponential, so tails that fall exponentially in u fall doubly
exponentially in t. Functions take and return arrays (..., K) of points in u.

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


def peak(log_f: Callable[[Array], Array], shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Mode and scale of unimodal functions, by zooming in; log_f takes (..., K)."""
    low, high = np.full(shape, -100.0), np.full(shape, 100.0)
    while True:
        u, gap = low[..., None] + (high - low)[..., None] * np.linspace(0, 1, 9), (high - low) / 8
        y = log_f(u)
        best = np.clip(np.argmax(y, axis=-1), 1, 7)[..., None]
        left, top, right = (np.take_along_axis(y, best + k, axis=-1)[..., 0] for k in (-1, 0, 1))
        centre = np.take_along_axis(u, best, axis=-1)[..., 0]
        is_open = ~(y.max(axis=-1) - np.minimum(left, right) < 1) & (gap > 1e-9)
        if not is_open.any():
            break
        low, high = np.where(is_open, centre - gap, low), np.where(is_open, centre + gap, high)
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
