"""Leave-group-out: log p(y_g | y_-g), the criterion for predicting new groups.

A group is left out by a refit, p(y_g | y_-g) = E[F(y_g; h)] over its draws (pooled: of F(y; h) / F(y_-g; h)), with F
the marginal likelihood of rows that share a rate (`model.marginal_quadrature`). All refits share one program: the cells
of the group remain with a weight near 0. If the remaining groups are alike, a hierarchy has a funnel: a refit that
misses the gate is repeated in the marginal parameterisation, if the likelihood has one.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from arviz_stats.base import array_stats

from poolwise.checks import loo, summary
from poolwise.checks.base import Check, FitView, Result, Settings
from poolwise.checks.conditions import limits
from poolwise.counts.cells import Counts
from poolwise.inference.engines import ENGINES
from poolwise.inference.engines.base import Fit
from poolwise.inference.settings import Device, Sampler
from poolwise.inference.streams import named_seed
from poolwise.model.count_model import WITHOUT_MEAN, Model
from poolwise.model.marginal_quadrature import RateIntegral, Rows
from poolwise.model.poolings.base import MARGINAL
from poolwise.model.priors import PriorValues
from poolwise.text import listed, one_line

HELD_OUT_WEIGHT = 1e-30  # multiplicity of a left-out cell: changes no bit of a density; no 0 / 0 in `model.marginal`


@dataclass(frozen=True)
class GroupsOut:
    """Log p(y_g | y_-g), all rows of a group jointly; each (G,).

    Attributes
    ----------
    elpd, mcse : the value and its Monte Carlo standard error, 0 if it is exact
    pareto_k : of the averaged values; if it is high, the Monte Carlo error is itself uncertain
    r_hat, ess : of the refit, largest and smallest over its parameters; 1 and inf if none was needed
    divergences : of the refit
    """

    labels: tuple[str, ...]
    elpd: np.ndarray
    mcse: np.ndarray
    pareto_k: np.ndarray
    r_hat: np.ndarray
    ess: np.ndarray
    divergences: np.ndarray
    num_chains: int
    k_threshold: float

    @property
    def total(self) -> float:
        """Sum over groups."""
        return float(self.elpd.sum())

    @property
    def se(self) -> float:
        """Standard error of the total over groups: sqrt(G) times their standard deviation."""
        num_groups = len(self.elpd)
        return float(np.sqrt(num_groups) * self.elpd.std(ddof=1)) if num_groups > 1 else float("nan")

    @property
    def total_mcse(self) -> float:
        """Monte Carlo standard error of the total; the refits are independent."""
        return float(np.sqrt(np.sum(self.mcse**2)))

    @property
    def suspect(self) -> tuple[str, ...]:
        """Labels of the groups whose refit misses the gate."""
        good = is_converged(self.r_hat, self.ess, self.divergences, self.num_chains)
        good &= (self.pareto_k <= self.k_threshold) & np.isfinite(self.elpd)
        return tuple(label for label, is_good in zip(self.labels, good, strict=True) if not is_good)


def run(view: FitView, settings: Settings) -> Result:
    """Every group predicted from all others."""
    found = leave_group_out(
        view.model,
        view.counts,
        view.prior_values,
        seed=settings.seed,
        sampler=settings.sampler,
        device=settings.device,
        on_group=settings.on_group,
    )
    return result(found)


CHECK = Check("leave_group_out", "leave_group_out", run)


def result(found: GroupsOut) -> Result:
    """The result of leave-group-out."""
    total = f"{found.total:.2f} +- {found.se:.2f} (Monte Carlo error {found.total_mcse:.2f})"
    lines = [f"groups left out, one at a time: elpd {total}"]
    if found.suspect:
        lines.append(f"  not reliable for {listed(map(one_line, found.suspect))}: the refit misses the gate")
    columns = {name: getattr(found, name) for name in ("elpd", "mcse", "pareto_k", "r_hat", "ess", "divergences")}
    columns["suspect"] = [label in found.suspect for label in found.labels]
    return Result(
        metrics={
            "elpd_leave_group_out": found.total,
            "elpd_leave_group_out_se": found.se,
            "elpd_leave_group_out_mcse": found.total_mcse,
            "leave_group_out_suspect": len(found.suspect),
        },
        lines=tuple(lines),
        tables={"leave_group_out": pd.DataFrame(columns, index=pd.Index(found.labels, name="group"))},
        shown_in=("leave_group_out",),
        value=found,
    )


def leave_group_out(
    model: Model,
    counts: Counts,
    values: PriorValues,
    *,
    seed: int,
    sampler: Sampler,
    device: Device,
    on_group: Callable[[str], None] = lambda label: None,
) -> GroupsOut:
    """Log p(y_g | y_-g) of every group, by a refit without it; pooled and unpooled Poisson need no refit.

    Parameters
    ----------
    on_group : called with its label before each group; may raise to stop
    """
    rows: list[tuple[float, ...]] = []
    for g, label in enumerate(counts.labels):
        on_group(label)
        draws, state = {}, (1.0, np.inf, 0.0)
        if RateIntegral.sites(model, values):
            refit = functools.partial(
                ENGINES[sampler.name].sample,
                counts=without_group(counts, g),
                values=values,
                seed=named_seed(seed, "groups_left_out", g),
                sampler=sampler,
                device=device,
            )
            found = refit(model)
            if not is_converged(*state_of(found), sampler.num_chains) and MARGINAL in model.pooling.offered(
                model.likelihood
            ):  # repeated without a funnel
                found = refit(replace(model, parameterisation=MARGINAL))
            draws, state = found.posterior, state_of(found)
        integral = RateIntegral.of(model, values, draws)
        rows.append((*_mean(_group_given_rest(counts, g, model, integral)), *state))
    num_draws = sampler.num_chains * sampler.num_samples
    elpd, mcse, pareto_k, r_hat, ess, divergences = np.array(rows).T
    return GroupsOut(
        counts.labels,
        elpd,
        mcse,
        pareto_k,
        r_hat,
        ess,
        divergences,
        num_chains=sampler.num_chains,
        k_threshold=loo.pareto_k_limit(num_draws),
    )


def without_group(counts: Counts, group: int) -> Counts:
    """The table without one group: its cells remain with a weight near 0. For `fit` alone; without a digest."""
    return with_rows(counts, np.where(counts.cell_group == group, 0.0, counts.cell_multiplicity))


def with_rows(counts: Counts, rows: np.ndarray) -> Counts:
    """The table with so many rows of each cell, (C,), at least a weight near 0. For a fit alone; without a digest."""
    multiplicity: Any = np.maximum(rows, HELD_OUT_WEIGHT)
    return replace(counts, cell_multiplicity=multiplicity, sha256="", file_sha256="")


def state_of(found: Fit) -> tuple[float, float, float]:
    """Largest R-hat, smallest ESS and divergences of a refit."""
    kept = {name: value for name, value in found.posterior.items() if name not in WITHOUT_MEAN}
    return (*summary.convergence(kept), float(np.sum(found.sample_stats.get("diverging", 0))))


def is_converged(r_hat: Any, ess: Any, divergences: Any, num_chains: int) -> Any:
    """Whether refits pass the gate, one or each of an array."""
    r_hat_limit, ess_limit, _ = limits(num_chains)
    return r_hat_limit.holds(r_hat) & ess_limit.holds(ess) & (divergences == 0)


# Identical rows.


def _group_given_rest(counts: Counts, g: int, model: Model, integral: RateIntegral) -> np.ndarray:
    """Log p(rows of the group | other groups, h), (chain, draw) or ()."""
    is_of_group, every = counts.cell_group == g, np.arange(counts.num_cells)
    if not model.pooling.is_shared:
        return integral.log_marginal(Rows.of(counts, is_of_group))
    others = replace(counts, cell_multiplicity=np.where(is_of_group, 0, counts.cell_multiplicity))
    return integral.log_marginal(Rows.of(counts, every)) - integral.log_marginal(Rows.of(others, every))


# Averages.


def _mean(log_values: np.ndarray) -> tuple[float, float, float]:
    """Log mean of exp over the draws, its Monte Carlo standard error and Pareto k; 0 and 0 of a single value."""
    top = log_values.max()
    if not log_values.ndim or np.ptp(log_values) == 0:
        return float(top), 0.0, 0.0
    relative = np.exp(log_values - top)
    mean = relative.mean()
    mcse = array_stats.mcse(relative / mean, method="mean")
    return float(top + np.log(mean)), float(mcse), loo.pareto_k(log_values)
