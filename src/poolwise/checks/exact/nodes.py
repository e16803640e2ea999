"""A model and its counts to nodes of the hyperparameters.

The hyperparameters are delta, mu and sigma of a hierarchy, or the one rate of a pooled model. Grids are nested: the
spread of the rates in delta, mu in both. An approximation of the factors places each grid where its integrand lies.
A hierarchy keeps only the nodes that matter to all data, or to all but one group.
"""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from poolwise.checks.exact.factors import BLOCK, MOMENT_LAWS, GammaLaw, MomentLaw, Nodes, PriorLaw, Table, table_of
from poolwise.checks.exact.quadrature import SCAN, Modes, modes, peak, place_around
from poolwise.model.poolings.base import Pooling

# nodes are dropped where the log of the approximate posterior falls by this, for all data and without any one group
SCREEN = 40.0
RIM = 3.0  # nodes this close to being dropped count as the end of a grid

Array = np.ndarray


@dataclass(frozen=True)
class Problem:
    """The integrals to compute; `with_cells`: also with each row left out."""

    pooling: Pooling
    priors: dict[str, PriorLaw]
    table: Table
    with_cells: bool = True

    @property
    def population(self) -> type[MomentLaw]:
        """The law of the rates of a hierarchy."""
        return MOMENT_LAWS[self.pooling.mixing.family]

    def without(self, rows: Array) -> "Problem":
        """The marginal likelihood alone, of the table without this many rows of each cell."""
        table = self.table
        columns = table.group, table.exposure, table.count, table.rows - rows
        rest = table_of(*columns, is_by_unit=table.is_by_unit)
        return replace(self, table=rest, with_cells=False)


def nodes_of(problem: Problem, places: dict[str, Modes], step: float) -> Nodes:
    """Nested grids: delta, then the spread of the rates, then mu; or delta, then the rate of a pooled model."""
    priors, pooling, delta = problem.priors, problem.pooling, None
    log_weight, logs, margin = np.zeros(1), {}, np.zeros(())
    if "delta" in priors:
        u, log_weight = places["delta"].grid(step)
        log_weight, logs["delta"] = log_weight + priors["delta"].log_density(u), priors["delta"].log_x(u)
        delta = np.exp(logs["delta"])
    if pooling.is_shared:
        place = priors["lam"].place(problem.table.merged(), None if delta is None else delta[:, None])
        u, weight = (each[0] for each in place.grid(step))  # (D, U)
        log_weight = log_weight[:, None] + weight + priors["lam"].log_density(u)
        logs["lam"] = priors["lam"].log_x(u)
    if pooling.has_population:
        near = Approximation.of(problem, delta)
        w, weight = places["spread"].grid(step)  # (V,)
        u, mu_weight = place_around(partial(near.log_joint, w), *near.mean_peak(w)).grid(step)  # (D, V, U)
        log_weight = log_weight[:, None, None] + weight[:, None] + mu_weight + near.log_prior(w, u)
        logs["mu"], logs["sigma"] = near.logs(w, u)
        margin = near.margin(log_weight - near.log_prior(w, u), w, u)
    shape = log_weight.shape
    kept = np.nonzero(np.broadcast_to(margin > -SCREEN, shape))
    ends = [(i == 0) | (i == n - 1) for i, n in zip(kept, shape, strict=True) if n > 1]
    values = {site: np.exp(_align(x, shape)[kept]) for site, x in logs.items()}
    law: PriorLaw | MomentLaw | None = None
    if pooling.has_population:
        law = problem.population(np.log(values["mu"]), (values["sigma"] / values["mu"]) ** 2)
    elif not pooling.is_shared:
        gamma = priors["lam"].gamma
        law = (
            priors["lam"] if gamma is None else GammaLaw(*(np.full(len(kept[0]), x) for x in (gamma.log_mu, gamma.cv2)))
        )
    is_end = np.any([*ends, np.broadcast_to(margin, shape)[kept] < RIM - SCREEN], axis=0)
    return Nodes(log_weight[kept], is_end, delta, kept[0], law, values)


def _align(x: Array, shape: tuple[int, ...]) -> Array:
    """By leading axes."""
    return np.broadcast_to(x.reshape(x.shape + (1,) * (len(shape) - x.ndim)), shape)


def places_of(problem: Problem) -> dict[str, Modes]:
    """All modes of delta and of the spread of the rates, by approximations of the factors."""
    places, delta = {}, None
    if "delta" in problem.priors:
        profile = _log_delta_of_population if problem.pooling.has_population else _log_delta_of_rates
        places["delta"] = modes(partial(profile, problem), SCAN[::2])
        delta = np.exp(problem.priors["delta"].log_x(_shoulders(places["delta"])))
    if problem.pooling.has_population:
        places["spread"] = modes(Approximation.of(problem, delta).log_spread)
    return places


def _shoulders(place: Modes) -> Array:
    return np.ravel(place.centre[:, None] + place.scale[:, None] * np.array([-2.0, 0.0, 2.0]))


def _log_delta_of_population(problem: Problem, u: Array) -> Array:
    """Log density of u, the coordinate of delta, maximised over the spread of the rates, (K,)."""
    prior = problem.priors["delta"]
    near = Approximation.of(problem, np.exp(prior.log_x(u)))
    return prior.log_density(u) + np.max(
        [near.log_profile(w).max(axis=1) for w in np.array_split(SCAN[10:-10:5], 5)], axis=0
    )


def _log_delta_of_rates(problem: Problem, u: Array) -> Array:
    """Log density of u, the coordinate of delta, with the rates at their modes given delta, (K,)."""
    table = problem.table.merged() if problem.pooling.is_shared else problem.table
    prior, lam = problem.priors["delta"], problem.priors["lam"]
    delta = np.exp(prior.log_x(u))
    centre, scale = lam.mode(table, delta[:, None])  # (G, K)
    log_f = lam.log_joint(table, delta[:, None], centre[..., None])[..., 0]
    return prior.log_density(u) + np.sum(log_f + np.log(scale) + table.of_rows(table.constant(delta)), axis=0)


@dataclass(frozen=True)
class Approximation:
    """Factors of Poisson counts with less information, good enough to place grids; of gamma rates and Poissons exact.

    At its group's own rate a count carries kappa = 1 / (1 + delta^2 rate exposure) of a Poisson count's information:
    approximately F_g = exp(base) int p(lam; mu, sigma) lam^(kappa total) exp(-kappa exposure lam) dlam.

    The coordinates are w = log(sigma / mu) and u = log mu: the joint is log-concave in u given w, but not given sigma.
    The bounds of a Uniform sigma would fall inside the range of u; w is then the coordinate of sigma.
    """

    priors: dict[str, PriorLaw]
    population: type[MomentLaw]
    base: Array  # (G, D)
    total: Array  # (G, D)
    exposure: Array  # (G, D)

    @staticmethod
    def of(problem: Problem, delta: Array | None) -> "Approximation":
        """At the values of delta (D,); D = 1 for the Poisson."""
        table = problem.table
        total, exposure = table.group_total[:, None], table.group_exposure[:, None]
        rate = (total + 0.5) / exposure
        kappa = np.ones((1, 1)) if delta is None else 1 / (1 + delta**2 * rate * exposure / table.group_units[:, None])
        total, exposure, log_rate = kappa * total, kappa * exposure, np.log(rate) + 0 * kappa
        base = table.log_likelihood(log_rate, delta) + table.of_rows(table.constant(delta))
        return Approximation(
            problem.priors, problem.population, base - total * log_rate + exposure * rate, total, exposure
        )

    def logs(self, w: Array, u: Array) -> tuple[Array, Array]:
        """Log mu and log sigma at w (V,) and u (D, V, U)."""
        log_mu = self.priors["mu"].log_x(u)
        return log_mu, self.priors["sigma"].log_x(self._of_sigma(w, log_mu))

    def log_prior(self, w: Array, u: Array) -> Array:
        """Log density of w and u."""
        of_sigma = self._of_sigma(w, self.priors["mu"].log_x(u))
        return self.priors["mu"].log_density(u) + self.priors["sigma"].log_density(of_sigma)

    def _of_sigma(self, w: Array, log_mu: Array) -> Array:
        """The coordinate of sigma, (D, V, U)."""
        return w[:, None] + (0 * log_mu if self.priors["sigma"].bounds else log_mu)

    def log_factors(self, w: Array, u: Array) -> Array:
        """(G, D, V, U)."""
        log_mu, log_sigma = self.logs(w, u)
        law = self.population(log_mu, np.exp(2 * (log_sigma - log_mu)))
        base, total, exposure = (each[:, :, None, None] for each in (self.base, self.total, self.exposure))
        return base + law.log_integral(total, exposure)

    def log_joint(self, w: Array, u: Array) -> Array:
        """(D, V, U)."""
        return self.log_prior(w, u) + self.log_factors(w, u).sum(axis=0)

    def mean_peak(self, w: Array) -> tuple[Array, Array]:
        """Mode and scale of u given w, (D, V)."""
        return peak(partial(self.log_joint, w), (self.base.shape[1], len(w)))

    def log_profile(self, w: Array) -> Array:
        """Log density of w and delta, with mu at its mode given both, (D, V)."""
        centre, scale = self.mean_peak(w)
        return self.log_joint(w, centre[..., None])[..., 0] + np.log(scale)

    def log_spread(self, w: Array) -> Array:
        """Log density of w, maximised over delta and mu, (V,)."""
        parts = np.array_split(w, 1 + len(w) * self.base.size * 9 // BLOCK)
        return np.concatenate([self.log_profile(each).max(axis=0) for each in parts])

    def margin(self, log_weight: Array, w: Array, u: Array) -> Array:
        """Smallest drop of each node below the largest: for all data, or without any one group."""
        log_f, log_prior = self.log_factors(w, u), self.log_prior(w, u)
        joint = log_weight + log_prior + log_f.sum(axis=0)
        margin = joint - joint.max()
        for each in log_f:
            margin = np.maximum(margin, joint - each - np.max(joint - each))
        return margin
