"""Rows that share one rate to their marginal likelihood F(rows; h) = int p(rows | lam, h) p(lam | h) dlam.

h are the parameters that are not rates. If the law of the rate (`model.mixings`) and the likelihood have a faster way,
F is theirs. Otherwise F is a trapezoid sum in t, log lam = mode + scale sinh(t) (between the bounds of a Uniform:
the logit). The tails of the integrand fall at least like a power of lam, so doubly exponentially in t. The terms of the
sum are also the law of the rate given these rows: a node has the probability of its term.

References
----------
Trefethen and Weideman (2014), The exponentially convergent trapezoidal rule, SIAM Review 56(3), doi:10.1137/130932132.
"""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

from poolwise.counts.cells import Columns, Counts
from poolwise.counts.covariates import Covariate
from poolwise.counts.statistics import filled_up
from poolwise.model import effects
from poolwise.model.count_model import Model
from poolwise.model.likelihoods.base import Likelihood
from poolwise.model.mixings import MIXINGS
from poolwise.model.mixings.base import Mixing
from poolwise.model.poolings.base import RateLaw
from poolwise.model.priors import FAMILIES, Arrays, PriorValues, distribution
from poolwise.model.special import LARGEST

BLOCK = 2**20  # values held at once
TOGETHER = 64  # most tables of one shape in a call
NODES, FIRST, STEP = 129, -10.5, 0.125  # of t
HALVINGS, NEAR = 64, 1e-3  # to find the mode; its curvature is that between slopes at this distance and at twice it
FARTHEST = 0.42  # of the largest logarithm of a float: log rates are clipped here, so squares are finite


@dataclass(frozen=True)
class Rows:
    """Cells that share one rate, by exposure and covariates; hashable.

    Attributes
    ----------
    x : rows of the design matrix, each (P,); empty without covariates
    """

    exposure: tuple[float, ...]
    count: tuple[int, ...]
    multiplicity: tuple[int, ...]
    x: tuple[tuple[float, ...], ...] = ()

    @classmethod
    def of(cls, counts: Counts, cells: np.ndarray) -> "Rows":
        """Some cells of a table, by number or by mask."""
        columns = counts.cell_exposure[cells], counts.cell_count[cells], counts.cell_multiplicity[cells]
        x = counts.cell_x[cells] if counts.effects else np.zeros((len(columns[0]), 0))
        order = np.lexsort((columns[1], *x.T[::-1], columns[0]))
        exposure, count, multiplicity = (tuple(column[order].tolist()) for column in columns)
        return cls(exposure, count, multiplicity, tuple(map(tuple, x[order].tolist())) if counts.effects else ())

    @property
    def kinds(self) -> list[tuple[float, tuple[float, ...], int]]:
        """What distinguishes the cells: exposure, row of the design matrix, count."""
        return list(zip(self.exposure, self.x or ((),) * len(self.count), self.count, strict=True))

    def plus(self, place: int, number: int) -> "Rows":
        """With so many more rows of the cell at this place, in the same shape; with fewer if the number is negative."""
        return replace(self, multiplicity=tuple(m + number * (i == place) for i, m in enumerate(self.multiplicity)))

    def counts(self) -> Counts:
        """A table of one group, without a name or digest."""
        exposure, count, multiplicity = (np.array(each) for each in (self.exposure, self.count, self.multiplicity))
        group, columns = np.zeros(len(count), int), Columns("", "", None)
        covariates = tuple(Covariate(str(column)) for column, _ in enumerate(self.x[0] if self.x else ()))
        cells = (group, exposure, count, multiplicity)
        return Counts("", ("",), *cells, "", "", "", columns, covariates=covariates, cell_x=np.array(self.x))


@dataclass(frozen=True)
class Gammas:
    """Gamma laws of rates given rows and h, (K, chain, draw) or (K,)."""

    shape: np.ndarray
    rate: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """Of the rates."""
        return self.shape / self.rate


@dataclass(frozen=True)
class RateIntegral:
    """F of one model at the draws of its posterior.

    Attributes
    ----------
    law : of a rate
    drawn : site or parameter of the law or of the likelihood -> its draws, (chain, draw); empty if F depends on none
    effects : names of the effects of covariates
    """

    likelihood: Likelihood
    law: RateLaw
    drawn: Mapping[str, np.ndarray]
    effects: tuple[str, ...] = ()

    @classmethod
    def of(cls, model: Model, values: PriorValues, posterior: Mapping[str, np.ndarray]) -> "RateIntegral":
        """From the draws (chain, draw) of the sites that are not rates."""
        law = model.rate_law(values)
        drawn = {parameter: posterior[site] for parameter, site in law.drawn.items()}
        drawn |= dict(model.likelihood.params_of(posterior))
        drawn |= {site: posterior[site] for site in map(effects.site_of, model.effects)}
        return cls(model.likelihood, law, drawn, model.effects)

    @staticmethod
    def sites(model: Model, values: PriorValues) -> tuple[str, ...]:
        """The sites of a posterior on which F depends."""
        of_law = model.rate_law(values).drawn.values()
        return (*of_law, *model.likelihood.parameters, *map(effects.site_of, model.effects))

    def work(self, rows: Rows) -> int:
        """Approximate number of Poisson densities per value, in cost."""
        strata = {kind[:2] if self.likelihood.has_marginal else kind for kind in rows.kinds}
        mixing = _mixing(self.law.family, self.likelihood)
        return len(strata) * (mixing.nodes(self.likelihood) if mixing else NODES) * self.likelihood.cost

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the draws: (chain, draw), or () if F depends on none."""
        return next((value.shape for value in self.drawn.values()), ())

    def log_marginal(self, rows: Rows) -> np.ndarray:
        """Log F(rows; h), (chain, draw); () if there is no h."""
        return self.log_marginals([rows])[0]

    def log_marginals(self, many: Sequence[Rows]) -> np.ndarray:
        """Log F(rows; h) of each, (K, chain, draw); (K,) if there is no h. Those of one shape are computed together."""
        found = np.zeros((len(many), *self.shape))
        statistics = {i: self._statistics(rows) for i, rows in enumerate(many) if any(rows.multiplicity)}
        by_shape: dict[tuple, list[int]] = {}
        for i, each in statistics.items():
            by_shape.setdefault(tuple(array.shape for array in each.values()), []).append(i)
        for alike in by_shape.values():
            for some in itertools.batched(alike, TOGETHER):
                padded = [*some, *some[-1:] * (_power_of_two("", len(some)) - len(some))]
                stacked = jax.tree.map(lambda *arrays: np.stack(arrays), *(statistics[i] for i in padded))
                found[list(some)] = self._integrated(stacked)[: len(some)]
        return found

    def log_marginal_of(self, statistics: Mapping[str, np.ndarray]) -> np.ndarray:
        """Log probability of all rows of a table of many groups, from `of_kinds`, (chain, draw)."""
        return self._integrated({name: np.asarray(each)[None] for name, each in statistics.items()})[0]

    def _integrated(self, stacked: Mapping[str, np.ndarray]) -> np.ndarray:
        """Log F of stacked statistics, (K, chain, draw); (K,) if there is no h."""
        given = self._flat() or {"none": np.zeros(1)}
        found = _integrate(dict(stacked), dict(self.law.values), given, **self._static)
        return np.asarray(found).T.reshape(-1, *self.shape)

    def gammas(self, many: Sequence[Rows]) -> "Gammas | None":
        """The law of the rate given each rows and h; None if it is no gamma law."""
        mixing = MIXINGS.get(self.law.family)
        if mixing is None:
            return None
        axes = tuple(range(1, 1 + len(self.shape)))
        exposure = [np.tensordot(rows.multiplicity, self.exposures(rows), axes=1) for rows in many]
        statistics = {
            "group_total": np.expand_dims([float(np.dot(rows.multiplicity, rows.count)) for rows in many], axes),
            "group_exposure": np.array(exposure) if self.effects else np.expand_dims(exposure, axes),
        }
        given = {**self.law.values, **self.drawn}
        law = {name: np.minimum(given[name], LARGEST) for name in mixing.parameters}
        found = mixing.rates_given(self.likelihood, statistics, law)
        return found and Gammas(*found)

    def exposures(self, rows: Rows) -> np.ndarray:
        """The exposures of the cells at the effects, (C, chain, draw); (C,) without effects."""
        exposure = np.array(rows.exposure)
        if not self.effects:
            return exposure
        factor = effects.factors(self.effects, self.drawn, np.array(rows.x))
        return np.moveaxis(exposure * factor, -1, 0)

    def rates(self, rows: Rows, quantile: np.ndarray) -> np.ndarray:
        """Quantiles of the rate given these rows and h, one per draw of h, in the shape of `quantile`.

        With uniform quantiles, the mean of f(rate) over them is the trapezoid sum of f.

        Parameters
        ----------
        quantile : (chain, draw) in (0, 1); any shape if there is no h
        """
        given = {"quantile": quantile.reshape(-1)} | self._flat()
        found = _rates(self._statistics(rows), dict(self.law.values), given, **self._static)
        return np.asarray(found).reshape(quantile.shape)

    @property
    def _static(self) -> dict[str, Any]:
        """What decides the program."""
        return {"likelihood": self.likelihood, "family": self.law.family, "names": self.effects}

    def _flat(self) -> dict[str, np.ndarray]:
        return {name: np.minimum(value, LARGEST).reshape(-1) for name, value in self.drawn.items()}

    def _statistics(self, rows: Rows) -> dict[str, np.ndarray]:
        return filled_up(self.likelihood.statistics.of(rows.counts()), to=_power_of_two)


def _power_of_two(name: str, length: int) -> int:
    """A padded length, so many tables share few shapes."""
    return 2 ** (length - 1).bit_length()


def _mixing(family: str, likelihood: Likelihood) -> Mixing | None:
    """The law of this family, if the rates of these counts can be integrated out under it."""
    mixing = MIXINGS.get(family)
    return mixing if mixing and mixing.integrates(likelihood) else None


@functools.partial(jax.jit, static_argnames=("likelihood", "family", "names"))
def _integrate(
    statistics: Arrays, fixed: Arrays, drawn: Arrays, *, likelihood: Likelihood, family: str, names: tuple[str, ...]
) -> jax.Array:
    """Log F of K tables, stacked, for draws (D,) of h: (D, K)."""
    mixing = _mixing(family, likelihood)

    def one(given: dict[str, jax.Array]) -> jax.Array:
        law = {**fixed, **given}

        def of_table(statistics: Arrays) -> jax.Array:
            statistics = effects.at_draw(likelihood.statistics, statistics, names, given)
            if mixing:
                params = {name: given[name] for name in likelihood.parameters}
                return mixing.log_marginal(likelihood, statistics, law, params)
            return logsumexp(_terms(statistics, law, likelihood, family)[1])

        return jax.vmap(of_table)(statistics)

    return jax.lax.map(one, drawn, batch_size=_batch(statistics))


@functools.partial(jax.jit, static_argnames=("likelihood", "family", "names"))
def _rates(
    statistics: Arrays, fixed: Arrays, drawn: Arrays, *, likelihood: Likelihood, family: str, names: tuple[str, ...]
) -> jax.Array:
    """The rate at a quantile of its law given the rows, for draws (D,) of h and of the quantile."""

    def one(given: dict[str, jax.Array]) -> jax.Array:
        at_draw = effects.at_draw(likelihood.statistics, statistics, names, given)
        rate, log_term = _terms(at_draw, {**fixed, **given}, likelihood, family)
        below = jnp.cumsum(jnp.exp(log_term - jnp.max(log_term)))
        return rate[jnp.searchsorted(below, given["quantile"] * below[-1])]

    return jax.lax.map(one, drawn, batch_size=_batch(statistics))


def _batch(statistics: Arrays) -> int:
    return max(1, BLOCK // (NODES * max(each.size for each in statistics.values())))


def _terms(statistics: Arrays, law: Arrays, likelihood: Likelihood, family: str) -> tuple[jax.Array, jax.Array]:
    """Rates at the nodes, and the log terms whose sum is F, each (NODES,)."""
    log_prior, coordinate, farthest = _law_of_log_rate(family, law)
    params = {name: law[name] for name in likelihood.parameters}
    x, log_term = _trapezoid(
        lambda x: log_prior(x) + likelihood.log_likelihood(statistics, coordinate(x)[None], params), farthest
    )
    return coordinate(x), log_term


def _law_of_log_rate(family: str, law: Arrays) -> tuple[Callable, Callable, jax.Array]:
    """Log density in a coordinate on the real line, the rate there, and the range."""
    dtype = jnp.zeros(()).dtype
    farthest = jnp.asarray(FARTHEST * np.log(jnp.finfo(dtype).max), dtype)

    def rate(x: jax.Array) -> jax.Array:
        return jnp.exp(jnp.clip(x, -farthest, farthest))

    if mixing := MIXINGS.get(family):
        return lambda x: mixing.log_density(law, x), rate, farthest
    values = {name: law[name] for name in FAMILIES[family].parameters}
    prior = distribution(family, values)
    if not FAMILIES[family].is_bounded:
        return lambda x: prior.log_prob(rate(x)) + x, rate, farthest
    width = law["high"] - law["low"]

    def between(x: jax.Array) -> jax.Array:
        return law["low"] + width * jax.nn.sigmoid(x)

    def log_prior(x: jax.Array) -> jax.Array:
        return prior.log_prob(between(x)) + jnp.log(width) + jax.nn.log_sigmoid(x) + jax.nn.log_sigmoid(-x)

    return log_prior, between, farthest


def _trapezoid(height: Callable[[jax.Array], jax.Array], farthest: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Nodes on the real line, and the log terms whose sum is the integral of exp(height), each (NODES,).

    The height may be -inf below some rate, at which a count is not possible.
    """

    def look(i: jax.Array, state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        """Halve the interval of the mode; when that is done, take slopes beside it. One loop compiles once."""
        low, high, _, last = state
        middle = (low + high) / 2
        is_halving = i < HALVINGS
        x = jnp.where(is_halving, middle, middle + (i - HALVINGS + 1) * NEAR)
        at_x, slope = jax.value_and_grad(height)(x)
        is_left = (slope > 0) | jnp.isneginf(at_x)
        low, high = jnp.where(is_halving & is_left, x, low), jnp.where(is_halving & ~is_left, x, high)
        return low, high, last, slope

    start = (-farthest, farthest, jnp.zeros_like(farthest), jnp.zeros_like(farthest))
    low, high, near, twice_as_far = jax.lax.fori_loop(0, HALVINGS + 2, look, start)
    mode, curvature = (low + high) / 2, (twice_as_far - near) / NEAR
    scale = jnp.minimum(1.0 / jnp.sqrt(jnp.maximum(-curvature, 1e-12)), 2.0)
    t = FIRST + STEP * jnp.arange(NODES)
    x = mode + scale * jnp.sinh(t)
    return x, jax.vmap(height)(x) + jnp.log(STEP * scale * jnp.cosh(t))
