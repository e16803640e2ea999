"""The law of overdispersion that the exposures of a table show: one disturbance a row, or one a unit of exposure.

A negative binomial count of exposure e and mean r has the variance r + (delta r)^2 by row, r + (delta r)^2 / e by unit.
Both fit rows of one exposure equally well, and predict other spreads at other exposures. Rows of different exposures
tell them apart: each law has a profile likelihood of delta with the rates of the groups integrated out by Laplace's
approximation in their logarithms (the adjustment of Cox and Reid), so that groups of few rows favour neither law. Both
have one parameter, so the ratio of their likelihoods, each at its best delta, needs no penalty.

References
----------
Cox and Reid (1987), JRSS B 49:1-39, doi:10.1111/j.2517-6161.1987.tb01422.x.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import gammaln

from poolwise.checks.base import Check, FitView, Result, Settings
from poolwise.checks.conditions import Condition
from poolwise.counts.cells import Counts, run_starts
from poolwise.model.likelihoods.negative_binomial import NegativeBinomial
from poolwise.text import compact, number, share, short, words_of

DECIDED = math.log(20.0)  # log likelihood ratio from which the data favour a law
REFUTED = math.log(10_000.0)  # from which the model check of the other law fails
LOG_PHI = (-12.0, 18.0)  # log concentration of a row of middle exposure
NEWTON = 12  # steps of the rates from one concentration to the next
MOST_CELLS = 20_000  # of a larger table, evenly spaced groups are used
ROW, UNIT, UNDECIDED = "row", "unit", "undecided"


def run(view: FitView, settings: Settings) -> Result:
    """The law that the data show, and what the fitted one says of the predicted exposure."""
    counts, noise = view.counts, view.model.likelihood
    if not isinstance(noise, NegativeBinomial) or not counts.has_exposure:
        return Result()
    if counts.effects:  # the profile likelihoods know no covariates
        return Result(lines=(_implied(view, noise, settings.exposure),))
    ratio = 0.0 if np.ptp(counts.cell_exposure) == 0 else log_ratio(counts, is_shared=view.model.pooling.is_shared)
    law = UNDECIDED if abs(ratio) < DECIDED else UNIT if ratio > 0 else ROW
    return Result(
        metrics={"overdispersion/log_ratio_unit_row": ratio},
        tags={"overdispersion_law": law},
        lines=(_line(ratio, law), _implied(view, noise, settings.exposure)),
        model_conditions=(_condition(noise, ratio),),
        value=ratio,
    )


CHECK = Check("exposure_law", "exposure_law", run)


def log_ratio(counts: Counts, *, is_shared: bool) -> float:
    """Log likelihood of the law by unit minus that of the law by row, each at its best delta.

    Parameters
    ----------
    is_shared : whether all groups have one rate
    """
    table = _Table.of(counts, is_shared=is_shared)
    return table.largest(is_by_unit=True) - table.largest(is_by_unit=False)


@dataclass(frozen=True)
class _Table:
    """Cells (C,) and strata (T,), the rows of one rate and exposure."""

    count: np.ndarray  # (C,)
    exposure: np.ndarray
    rows: np.ndarray
    group: np.ndarray  # (T,)
    stratum_exposure: np.ndarray
    stratum_rows: np.ndarray
    stratum_total: np.ndarray

    @staticmethod
    def of(counts: Counts, *, is_shared: bool) -> "_Table":
        """All cells, or those of evenly spaced groups."""
        every = -(-counts.num_cells // MOST_CELLS)
        kept = counts.cell_group % every == 0
        group, exposure, count, rows = (
            each[kept].astype(float)
            for each in (counts.cell_group, counts.cell_exposure, counts.cell_count, counts.cell_multiplicity)
        )
        group = 0 * group if is_shared else group
        order = np.lexsort((count, exposure, group))
        group, exposure, count, rows = (each[order] for each in (group, exposure, count, rows))
        first = run_starts(group, exposure)
        of_stratum = np.unique(group[first], return_inverse=True)[1]
        totals = np.add.reduceat(rows, first), np.add.reduceat(rows * count, first)
        return _Table(count, exposure, rows, of_stratum, exposure[first], *totals)

    def largest(self, *, is_by_unit: bool) -> float:
        """The largest adjusted profile log likelihood of a law, without what both laws share."""
        middle = np.average(np.log(self.stratum_exposure), weights=self.stratum_rows) if is_by_unit else 0.0
        exposure = np.bincount(self.group, self.stratum_rows * self.stratum_exposure)
        log_rate = np.log(np.bincount(self.group, self.stratum_total) + 0.5) - np.log(exposure)  # (G,)

        def cost(log_phi: float) -> float:
            of_cell, of_stratum = (
                np.exp(np.clip(log_phi + is_by_unit * np.log(each) - middle, -30.0, 40.0))
                for each in (self.exposure, self.stratum_exposure)
            )
            return -float(self.rows @ _log_rising(of_cell, self.count)) - self._of_rates(of_stratum, log_rate)

        return -float(minimize_scalar(cost, bounds=LOG_PHI, method="bounded", options={"xatol": 1e-3}).fun)

    def _of_rates(self, phi: np.ndarray, log_rate: np.ndarray) -> float:
        """Terms of the rates at their best, less half the log of their information; moves `log_rate` there."""
        size, total = self.stratum_rows * phi, self.stratum_total
        for _ in range(NEWTON):
            odds = self.stratum_exposure * np.exp(log_rate)[self.group] / phi
            slope = np.bincount(self.group, (total - size * odds) / (1 + odds))
            log_rate += np.clip(slope / np.bincount(self.group, (total + size) * odds / (1 + odds) ** 2), -1.0, 1.0)
        odds = self.stratum_exposure * np.exp(log_rate)[self.group] / phi
        fitted = total @ log_rate[self.group] - (total + size) @ np.log1p(odds)
        return float(fitted - 0.5 * np.log(np.bincount(self.group, size * odds / (1 + odds))).sum())


def _log_rising(a: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Log Gamma(a + n) - log Gamma(a) - n log a; it vanishes for large a."""
    return np.where(a < 1e8, gammaln(a + count) - gammaln(a) - count * np.log(a), count * (count - 1) / (2 * a))


def _line(ratio: float, law: str) -> str:
    """What the data show of the law."""
    if law == UNDECIDED:
        return "the exposures do not tell whether overdispersion is that of a row or of a unit of exposure"
    other = ROW if law == UNIT else UNIT
    times = f"{number(math.exp(abs(ratio)), 2)} times" if abs(ratio) < REFUTED else "over 10,000 times"
    return f"overdispersion of a {law}: these data are {times} as likely as with that of a {other}"


def _implied(view: FitView, noise: NegativeBinomial, exposure: float) -> str:
    """The spread beyond Poisson noise that the fitted law gives a count at the predicted exposure."""
    params = {name: float(view.posterior[name].median()) for name in noise.parameters}
    spread = noise.extra_spread(view.new_group.mean, noise.at(params, exposure))
    size = f"{compact(exposure * view.counts.columns.per)} {short(words_of(view.counts.columns.exposure or ''))}"
    shown = share(spread) if spread < 1 else f"{number(spread, 2)} times"
    varies = f"beyond Poisson noise a count at exposure {size.strip()} varies by {shown} of its mean"
    return f"{varies}, {noise.other_exposures}"


def _condition(noise: NegativeBinomial, ratio: float) -> Condition:
    """Whether the data refute the fitted law."""
    against = ratio if noise.overdispersion == ROW else -ratio
    better = UNIT if noise.overdispersion == ROW else ROW
    return Condition.of(
        name="overdispersion by row or by unit of exposure: do the data refute the fitted law?",
        value=f"log likelihood ratio {-against:+.1f}",
        limit=f"at least {-REFUTED:.1f}",
        passed=against <= REFUTED,
        otherwise=f"rows of different exposures vary as those of overdispersion={better} do",
        remedy=(f"likelihood.overdispersion={better}",),
    )
