"""Rows of groups to their factors F_g(h), the integrals over the rates given the hyperparameters h.

    F_g(h) = int p(lam | h) prod_{i in g} p(y_i | lam, delta) dlam

in closed form for a gamma law of lam and Poisson counts, otherwise a sum over a grid of log lam per group and node.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, ClassVar

import numpy as np
from scipy.special import gammaln, log_expit, wrightomega

from poolwise.checks.exact.quadrature import FARTHEST, Place, log_sum, peak, place_around
from poolwise.model.priors import FAMILIES, law

NARROWEST = 1e-6  # smallest sigma / mu for which lam is integrated numerically
NEWTON = 40  # most steps, of at most 2 each: from a rate in the data to one in the prior
BLOCK = 2**14  # cells x nodes held at once

Array = np.ndarray


# The table.


@dataclass(frozen=True)
class Table:
    """Cells (C,), strata (S,) of one group and exposure (runs of cells), and groups (G,), from 0 without a gap.

    A row has as many disturbances as its units: one, or its exposure if `is_by_unit`.
    """

    group: Array
    exposure: Array
    count: Array
    rows: Array
    stratum: Array  # (C,)
    stratum_group: Array  # (S,)
    stratum_exposure: Array
    stratum_rows: Array
    stratum_units: Array  # of one row
    stratum_total: Array
    first: Array  # (G,), each group's first stratum
    group_rows: Array  # (G,)
    group_units: Array
    group_total: Array
    group_exposure: Array
    is_by_unit: bool

    def log_likelihood(self, log_lam: Array, delta: Array | None) -> Array:
        """Log p(y_g | lam) without its constant, (G, ...), at log lam (G, ...) and delta (...)."""
        like = (-1, *[1] * (log_lam.ndim - 1))
        total, rows = self.stratum_total.reshape(like), self.stratum_rows.reshape(like)
        rate = self.stratum_exposure.reshape(like) * np.exp(log_lam)[self.stratum_group]
        lost = rows * rate
        if delta is not None:
            units = self.stratum_units.reshape(like)
            lost = (total + rows * units / delta**2) * np.log1p(delta**2 * (rate / units))
        return np.add.reduceat(total * log_lam[self.stratum_group] - lost, self.first, axis=0)

    def log_rows(self, log_lam: Array, delta: Array | None, cells: slice) -> Array:
        """Log p(y) of one row of each cell without its constant, (C, N, K)."""
        count, group, stratum = self.count[cells, None, None], self.group[cells], self.stratum[cells]
        rate = self.stratum_exposure[:, None, None] * np.exp(log_lam)[self.stratum_group]
        if delta is None:
            return count * log_lam[group] - rate[stratum]
        units = self.stratum_units[:, None, None]
        spread = np.log1p(delta**2 * (rate / units))
        return count * log_lam[group] - (count + units[stratum] / delta**2) * spread[stratum]

    def constant(self, delta: Array | None) -> Array:
        """Terms of log p(y) of one row of each cell that do not depend on lam, (C, D); delta (D,)."""
        constant = (self.count * np.log(self.exposure) - gammaln(self.count + 1))[:, None]
        units = self.stratum_units[self.stratum, None]
        return constant if delta is None else constant + log_rising(units * delta**-2, self.count[:, None])

    def of_rows(self, of_one: Array) -> Array:
        """Sums over each group's rows (G, D) of values per row of each cell (C, D)."""
        return np.add.reduceat(self.rows[:, None] * of_one, np.flatnonzero(np.diff(self.group, prepend=-1)))

    def merged(self) -> "Table":
        """All rows in one group."""
        order = np.argsort(self.exposure, kind="stable")
        columns = (each[order] for each in (self.exposure, self.count, self.rows))
        return table_of(0 * self.group, *columns, is_by_unit=self.is_by_unit)

    def parts(self, size: int) -> Iterator["Table"]:
        """Blocks of groups in order, of about this many cells and strata."""
        first = np.flatnonzero(np.diff(self.group, prepend=-1))
        block = ((np.arange(len(self.group)) + self.stratum)[first] // max(size, 1))[self.group]  # (C,)
        for each in np.unique(block):
            columns = (x[block == each] for x in (self.group, self.exposure, self.count, self.rows))
            yield table_of(*columns, is_by_unit=self.is_by_unit)


def table_of(group: Array, exposure: Array, count: Array, rows: Array, *, is_by_unit: bool) -> Table:
    """Cells, in the order of group and exposure; those without rows are dropped."""
    exposure, count, rows, kept = *(np.asarray(each, float) for each in (exposure, count, rows)), rows > 0
    exposure, count, rows = exposure[kept], count[kept], rows[kept]
    group = np.unique(group[kept], return_inverse=True)[1]
    is_first = (np.diff(group, prepend=-1) != 0) | (np.diff(exposure, prepend=-1.0) != 0)
    strata, groups = np.flatnonzero(is_first), np.flatnonzero(np.diff(group, prepend=-1))
    first = np.flatnonzero(np.diff(group[strata], prepend=-1))
    units = exposure if is_by_unit else np.ones_like(exposure)

    def sums(x: Array, begin: Array) -> Array:
        return np.add.reduceat(x, begin) if len(x) else x

    return Table(
        group=group,
        exposure=exposure,
        count=count,
        rows=rows,
        stratum=np.cumsum(is_first) - 1,
        stratum_group=group[strata],
        stratum_exposure=exposure[strata],
        stratum_rows=sums(rows, strata),
        stratum_units=units[strata],
        stratum_total=sums(rows * count, strata),
        first=first,
        group_rows=sums(rows, groups),
        group_units=sums(rows * units, groups),
        group_total=sums(rows * count, groups),
        group_exposure=sums(rows * exposure, groups),
        is_by_unit=is_by_unit,
    )


# Laws of one positive quantity, in a coordinate u on the real line.


@dataclass(frozen=True)
class PriorLaw:
    """A registered family; u is the logarithm, or the logit between the bounds of a Uniform."""

    law: Any
    bounds: tuple[float, float] | None
    gamma: "GammaLaw | None"  # the same, if it is a gamma

    def log_x(self, u: Array) -> Array:
        """Log of the quantity."""
        if self.bounds is None:
            return np.clip(u, -FARTHEST, FARTHEST)
        low, high = self.bounds
        return np.logaddexp(np.log(low), np.log(high - low) + log_expit(u))

    def log_density(self, u: Array) -> Array:
        """Of u."""
        return log_expit(u) + log_expit(-u) if self.bounds else self.law.logpdf(np.exp(self.log_x(u))) + u

    def place(self, table: Table, delta: Array | None) -> Place:
        """Place of lam in each group, at the values of delta (N, 1); (G, N)."""
        return place_around(partial(self.log_joint, table, delta), *self.mode(table, delta))

    def mode(self, table: Table, delta: Array | None) -> tuple[Array, Array]:
        """Mode and scale of lam in each group, (G, N)."""
        shape = (len(table.group_rows), 1 if delta is None else len(delta))
        return peak(partial(self.log_joint, table, delta), shape)

    def log_joint(self, table: Table, delta: Array | None, u: Array) -> Array:
        """Log density of u and the counts of each group, without a constant, (G, N, K)."""
        return self.log_density(u) + table.log_likelihood(self.log_x(u), delta)


@dataclass(frozen=True)
class MomentLaw(ABC):
    """Law with mean mu and squared coefficient of variation cv2, (N,) or any shape; u is the logarithm.

    Attributes
    ----------
    is_conjugate : whether `log_integral` is exact, so that Poisson counts need no grid of lam
    """

    log_mu: Array
    cv2: Array
    is_conjugate: ClassVar[bool] = False

    def log_x(self, u: Array) -> Array:
        """Log of the quantity."""
        return np.clip(u, -FARTHEST, FARTHEST)

    def at(self, kept: Array | slice) -> "MomentLaw":
        """At a subset of the nodes."""
        return type(self)(self.log_mu[kept], self.cv2[kept])

    @abstractmethod
    def log_density(self, u: Array) -> Array:
        """Log density of u (..., N, K), for mu and cv2 (N,)."""

    @abstractmethod
    def log_integral(self, total: Array, exposure: Array) -> Array:
        """Log of the mean of lam^total exp(-exposure lam), at least approximately; arguments broadcast."""

    @abstractmethod
    def place(self, table: Table, delta: Array | None) -> Place:
        """Place of lam in each group, at the values of delta (N, 1); (G, N)."""


class GammaLaw(MomentLaw):
    """Gamma law."""

    is_conjugate = True

    def log_density(self, u: Array) -> Array:
        """Log density of u (..., N, K), for mu and cv2 (N,)."""
        a = 1 / np.maximum(self.cv2, NARROWEST**2)
        z, large = u - self.log_mu[:, None], np.maximum(a, 16.0)
        series = np.log(large / (2 * np.pi)) / 2 - _stirling(large)
        return a[:, None] * (z - np.expm1(z)) + np.where(a > 16, series, a * np.log(a) - a - gammaln(a))[:, None]

    def log_integral(self, total: Array, exposure: Array) -> Array:
        """Log of the mean of lam^total exp(-exposure lam); arguments broadcast."""
        a = 1 / self.cv2
        spread = np.log1p(exposure * np.exp(self.log_mu) * self.cv2)
        return log_rising(a, total) + total * self.log_mu - (a + total) * spread

    def place(self, table: Table, delta: Array | None) -> Place:
        """Newton: the integrand is log-concave. Without a delta nothing is placed: the integral is closed."""
        a = 1 / np.maximum(self.cv2, NARROWEST**2)
        b, square, group = a * np.exp(-self.log_mu), delta[:, 0] ** 2, table.stratum_group  # type: ignore[index]
        total = table.stratum_total[:, None] + (table.stratum_rows * table.stratum_units)[:, None] / square  # (S, N)
        kappa = 1 / (1 + square * (table.group_total / table.group_units)[:, None])
        u = np.log((a + kappa * table.group_total[:, None]) / (b + kappa * table.group_exposure[:, None]))
        for _ in range(NEWTON):
            odds = square * (table.stratum_exposure / table.stratum_units)[:, None] * np.exp(u[group])
            slope, bend = (np.add.reduceat(total * odds / (1 + odds) ** k, table.first) for k in (1, 2))
            bend += b * np.exp(u)
            change = np.clip((a + table.group_total[:, None] - b * np.exp(u) - slope) / bend, -2.0, 2.0)
            u += change
            if not (np.abs(change) * np.sqrt(bend) > 0.01).any():  # in units of the scale
                break

        def log_f(u: Array) -> Array:
            return self.log_density(u) + table.log_likelihood(self.log_x(u), delta)

        return place_around(log_f, u, 1 / np.sqrt(bend))


class LogNormalLaw(MomentLaw):
    """Log-normal law; the mean of `log_integral` is by Laplace's method."""

    @property
    def loc(self) -> Array:
        """Mean of u."""
        return self.log_mu - self.scale**2 / 2

    @property
    def scale(self) -> Array:
        """Standard deviation of u."""
        return np.sqrt(np.log1p(np.maximum(self.cv2, NARROWEST**2)))

    def log_density(self, u: Array) -> Array:
        """Normal."""
        loc, scale = self.loc[:, None], self.scale[:, None]
        return -(((u - loc) / scale) ** 2) / 2 - np.log(scale) - np.log(2 * np.pi) / 2

    def log_integral(self, total: Array, exposure: Array) -> Array:
        """At the mode u = loc + s^2 total - omega, omega = s^2 exposure exp u, the Wright omega function."""
        square = self.scale**2
        furthest = self.loc + square * total
        omega = np.real(wrightomega(np.log(square * exposure) + furthest))
        u = furthest - omega
        return total * u - omega / square - (u - self.loc) ** 2 / (2 * square) - np.log1p(omega) / 2

    def place(self, table: Table, delta: Array | None) -> Place:
        """Around a mode found by zooming in: the integrand is log-concave."""

        def log_f(u: Array) -> Array:
            return self.log_density(u) + table.log_likelihood(self.log_x(u), delta)

        return place_around(log_f, *peak(log_f, (len(table.group_rows), len(self.log_mu))))


MOMENT_LAWS: dict[str, type[MomentLaw]] = {"Gamma": GammaLaw, "LogNormal": LogNormalLaw}


def prior_law(family: str, values: Mapping[str, Any]) -> PriorLaw:
    """The law of a registered family."""
    numbers, gamma = {key: float(value) for key, value in values.items()}, None
    if family in ("Gamma", "Exponential"):
        shape = np.array(numbers.get("concentration", 1.0))
        gamma = GammaLaw(np.log(shape / numbers["rate"]), 1 / shape)
    bounds = (numbers["low"], numbers["high"]) if FAMILIES[family].is_bounded else None
    return PriorLaw(law(family, values), bounds, gamma)


# Factors.


@dataclass(frozen=True)
class Nodes:
    """N nodes of the hyperparameters."""

    log_weight: Array  # (N,), with the log prior density
    is_end: Array  # (N,), at the end of a grid
    delta: Array | None  # (D,), None for the Poisson
    which: Array  # (N,), index into delta
    law: PriorLaw | MomentLaw | None  # of lam; None if lam is one of the values, pooled
    values: dict[str, Array]  # site -> (N,)

    def at(self, kept: Array | slice) -> "Nodes":
        """A subset of the nodes."""
        law = self.law.at(kept) if isinstance(self.law, MomentLaw) else self.law
        values = {site: x[kept] for site, x in self.values.items()}
        return Nodes(self.log_weight[kept], self.is_end[kept], self.delta, self.which[kept], law, values)


@dataclass(frozen=True)
class Factors:
    """At every node: the factors, moments of lam, and the effect of leaving out a row."""

    log_f: Array  # (G, N)
    lam: Array  # (G, N), mean of lam given the node and the data
    square: Array  # of lam^2
    lam_end: Array  # contribution of the ends of the grid of lam
    square_end: Array
    less: Array  # (C, N), log of (factor without one row of the cell / factor)
    less_end: Array  # (C, N), share of the ends in it


def factors_of(table: Table, nodes: Nodes, step: float, *, with_cells: bool) -> Factors:
    """All factors, in blocks of groups and nodes."""

    def one(part: Table, constant: Array, nodes: Nodes) -> Factors:
        if nodes.delta is None and isinstance(nodes.law, GammaLaw):
            return _closed(part, constant, nodes.law, cells)
        return _integrated(part, constant, nodes, cells, step=step)

    cells, parts = slice(None if with_cells else 0), []
    for part in table.parts(BLOCK // min(len(nodes.which), 100)):
        constant = part.constant(nodes.delta)
        size = BLOCK // (len(part.group) + len(part.stratum_group)) + 1
        blocks = [one(part, constant, nodes.at(np.s_[i : i + size])) for i in range(0, len(nodes.which), size)]
        parts.append(
            [np.concatenate([getattr(block, each.name) for block in blocks], axis=1) for each in fields(Factors)]
        )
    return Factors(*map(np.concatenate, zip(*parts, strict=True)))


def _closed(part: Table, constant: Array, law: GammaLaw, cells: slice) -> Factors:
    """Poisson counts and a gamma law: conjugate given the node."""
    group = part.group[cells]
    total, exposure = part.group_total[:, None], part.group_exposure[:, None]
    log_f = law.log_integral(total, exposure)  # (G, N)
    shape, rate = 1 / law.cv2 + total, np.exp(-law.log_mu) / law.cv2 + exposure
    rest = total[group] - part.count[cells, None], np.maximum(exposure[group] - part.exposure[cells, None], 0.0)
    less = law.log_integral(*rest) - log_f[group] - constant[cells]
    none, square = np.zeros_like(log_f), shape * (shape + 1) / rate**2
    return Factors(log_f + part.of_rows(constant), shape / rate, square, none, none, less, np.zeros_like(less))


def _integrated(part: Table, constant: Array, nodes: Nodes, cells: slice, *, step: float) -> Factors:
    """All other cases: a sum over a grid of lam per group and node, of one point if the node fixes lam."""
    delta = None if nodes.delta is None else nodes.delta[nodes.which][:, None]  # (N, 1)
    if nodes.law is None:
        log_lam = np.broadcast_to(np.log(nodes.values["lam"])[:, None], (len(part.group_rows), len(nodes.which), 1))
        log_q, ends = np.zeros_like(log_lam), []
    else:
        u, log_q = nodes.law.place(part, delta).grid(step)  # (G, N, K)
        log_q, log_lam, ends = log_q + nodes.law.log_density(u), nodes.law.log_x(u), [0, -1]
    log_q = log_q + part.log_likelihood(log_lam, delta)
    log_f = log_sum(log_q)
    log_q -= log_f[..., None]
    first = np.exp(log_q + log_lam)
    second = first * np.exp(log_lam)
    log_less = log_q[part.group[cells]] - part.log_rows(log_lam, delta, cells)  # (C, N, K)
    less = log_sum(log_less)
    return Factors(
        log_f=log_f + part.of_rows(constant)[:, nodes.which],
        lam=first.sum(axis=-1),
        square=second.sum(axis=-1),
        lam_end=first[..., ends].sum(axis=-1),
        square_end=second[..., ends].sum(axis=-1),
        less=less - constant[cells][:, nodes.which],
        less_end=np.exp(log_less[..., ends] - less[..., None]).sum(axis=-1),
    )


# A special function.


def log_rising(a: Array, n: Array) -> Array:
    """Log Gamma(a + n) - log Gamma(a) - n log a, by Stirling's series where log-gammas would cancel."""
    large = np.maximum(a, 16.0)
    series = (large + n - 0.5) * np.log1p(n / large) - n + _stirling(large + n) - _stirling(large)
    return np.where(a > 16, series, gammaln(a + n) - gammaln(a) - n * np.log(a))


def _stirling(x: Array) -> Array:
    """Log Gamma(x) - [(x - 1/2) log x - x + log(2 pi) / 2], for x >= 16."""
    y = 1 / x
    return y * (1 / 12 - y**2 * (1 / 360 - y**2 * (1 / 1260 - y**2 / 1680)))
