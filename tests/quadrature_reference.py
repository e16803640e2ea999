"""Counts, exposures and any law of one count to the exact posterior of a pooled or an unpooled model.

Row i, in group g(i) and with exposure e_i, has the rate e_i lam[g(i)]. The rates have one prior, independently or, if
pooled, all at once; the likelihood has up to two parameters h, each with its own prior. Given h the groups are
independent, so

    p(y) = sum over nodes of h of weight * prod_g F_g(h),    F_g(h) = int prod_{i in g} p(y_i | e_i lam, h) p(lam) dlam

with trapezoid sums over log lam and Gauss-Legendre rules over h, both where a coarse pass finds the mass. Leaving a row
out changes only the factor of its group: p(y_i | other rows) = p(y) / p(other rows), also where a row is impossible at
rates or h that the others allow.

Only NumPy and SciPy are used, and nothing of the package under test.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import logsumexp

Rows = tuple[np.ndarray, np.ndarray]  # counts and exposures of a group
LogPmf = Callable[..., np.ndarray]  # (count, rate, exposure, **h) -> log probability; arguments broadcast
FAR = 1e-12  # tail probability of a prior that is left out
NEGLIGIBLE = 50.0  # nodes this far below the largest log joint are dropped


@dataclass(frozen=True)
class Posterior:
    """Free of Monte Carlo error.

    Attributes
    ----------
    log_marginal : log p(y)
    mean, sd : by parameter; lam is () if pooled, else (G,)
    elpd : by group, of each row left out
    """

    log_marginal: float
    mean: dict[str, np.ndarray]
    sd: dict[str, np.ndarray]
    elpd: list[np.ndarray]

    @property
    def elpd_loo(self) -> float:
        """Of all rows."""
        return float(sum(each.sum() for each in self.elpd))


def posterior(
    log_pmf: LogPmf,
    groups: Sequence[Rows],
    *,
    is_pooled: bool,
    lam: Any,
    given: Mapping[str, Any],
    num_rates: int = 400,
    num_nodes: int = 48,
) -> Posterior:
    """The posterior under priors that are frozen SciPy distributions.

    Parameters
    ----------
    lam : prior of a rate
    given : parameter -> its prior
    num_rates, num_nodes : of each rate, and of each parameter
    """
    joined = [tuple(np.concatenate(each) for each in zip(*groups, strict=True))] if is_pooled else list(groups)
    ends = {name: (prior.ppf(FAR), prior.ppf(1 - FAR)) for name, prior in given.items()}
    for size in (24, num_nodes):  # the first pass finds where the mass is
        nodes, log_weight = _nodes(given, ends, size)
        factors = [_Factor.of(log_pmf, *rows, lam, nodes, num_rates) for rows in joined]
        log_joint = log_weight + sum(each.log_value for each in factors)  # (H,)
        ends = _narrowed(nodes, log_joint, ends)
    log_z = logsumexp(log_joint)
    share = np.exp(log_joint - log_z)  # (H,)
    moments = np.stack([each.moments @ share for each in factors], axis=1)  # (2, F)
    moments = moments[:, 0] if is_pooled else moments
    mean = {"lam": moments[0]} | {name: nodes[name] @ share for name in given}
    square = {"lam": moments[1]} | {name: nodes[name] ** 2 @ share for name in given}
    elpd = np.concatenate([-logsumexp(each.without + log_joint - log_z, axis=1) for each in factors])
    bounds = np.cumsum([len(count) for count, _ in groups])[:-1]
    sd = {name: np.sqrt(square[name] - mean[name] ** 2) for name in mean}
    return Posterior(float(log_z), mean, sd, np.split(elpd, bounds))


@dataclass(frozen=True)
class _Factor:
    """A group at the nodes of h: log F (H,); E lam and E lam^2 (2, H); log F without each row, over F, (N, H)."""

    log_value: np.ndarray
    moments: np.ndarray
    without: np.ndarray

    @classmethod
    def of(
        cls,
        log_pmf: LogPmf,
        count: np.ndarray,
        exposure: np.ndarray,
        lam: Any,
        nodes: Mapping[str, Any],
        num_rates: int,
    ) -> "_Factor":
        low, high = np.log(lam.ppf([FAR, 1 - FAR]))
        for size in (120, num_rates):
            log_rate, step = np.linspace(low, high, size, retstep=True)
            rate = np.exp(log_rate)
            _, kind, rows = np.unique(np.stack([count, exposure]), axis=1, return_inverse=True, return_counts=True)
            kinds = np.unique(np.stack([count, exposure]), axis=1)[:, :, None, None]  # (2, K, 1, 1)
            of_rate = kinds[1] * rate[:, None]  # (K, L, 1)
            log_p = log_pmf(kinds[0], of_rate, kinds[1], **nodes)  # (K, L, H)
            with np.errstate(invalid="ignore"):
                base = (lam.logpdf(rate) + log_rate + np.log(step))[:, None]
                whole = base + _times(rows, log_p)  # (L, H)
            mass = np.flatnonzero(whole.max(axis=1) > whole.max() - NEGLIGIBLE)
            low, high = log_rate[max(mass[0] - 1, 0)], log_rate[min(mass[-1] + 1, size - 1)]
        log_value = logsumexp(whole, axis=0)
        weight = np.exp(whole - log_value)
        moments = np.stack([rate @ weight, rate**2 @ weight])
        less = [logsumexp(base + _times(rows - np.eye(len(rows))[k], log_p), axis=0) for k in range(len(rows))]
        return cls(log_value, moments, (np.stack(less) - log_value)[np.ravel(kind)])


def _times(rows: np.ndarray, log_p: np.ndarray) -> np.ndarray:
    """The sum over kinds of rows times log p, where no row of an impossible kind is nothing."""
    rows = rows[:, None, None]
    return np.where(rows > 0, rows * np.where(rows > 0, log_p, 0.0), 0.0).sum(axis=0)


def _nodes(given: Mapping[str, Any], ends: Mapping[str, tuple], size: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Nodes of h, each (H,), and the logarithm of weight times prior density."""
    x, weight = np.polynomial.legendre.leggauss(size)
    axes = {name: low + (high - low) * (1 + x) / 2 for name, (low, high) in ends.items()}
    log_weights = [
        np.log(weight * (ends[name][1] - ends[name][0]) / 2) + prior.logpdf(axes[name]) for name, prior in given.items()
    ]
    grid = np.array(list(itertools.product(*axes.values()))).T if given else np.zeros((0, 1))
    total = np.array([sum(each) for each in itertools.product(*log_weights)])
    return dict(zip(given, grid, strict=True)), total


def _narrowed(nodes: Mapping[str, np.ndarray], log_joint: np.ndarray, ends: Mapping[str, tuple]) -> dict[str, tuple]:
    """The ends of the mass of each parameter, and one node more on each side."""
    found, has_mass = {}, log_joint > log_joint.max() - NEGLIGIBLE
    for name, node in nodes.items():
        low, high = node[has_mass].min(), node[has_mass].max()
        lower, upper = node[node < low], node[node > high]
        found[name] = (lower.max() if lower.size else ends[name][0], upper.min() if upper.size else ends[name][1])
    return found
