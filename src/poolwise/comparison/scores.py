"""Log predictive densities of a model by what was left out, pooled over its runs.

    elpd = sum_c m_c elpd_c,    m_c the number of rows of cell c; of a whole group, 1

Independent runs of one model estimate the same values. They are pooled with weights 1 / mcse^2. If the runs spread more
than their own Monte Carlo errors explain, the error of the pooled value is widened to their spread.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from poolwise.checks.loo import weighted_sum
from poolwise.comparison.candidates import Candidate, cell_of


@dataclass(frozen=True)
class Scores:
    """Log predictive densities of the rows, or of the groups, left out one at a time.

    Attributes
    ----------
    cells : columns multiplicity and elpd; indexed by group, exposure, count and covariates, for whole groups by group;
        sorted
    mcse : Monte Carlo standard error of the total; NaN if unknown
    """

    cells: pd.DataFrame
    mcse: float

    @property
    def total(self) -> tuple[float, float]:
        """The elpd, and its standard error: sqrt(N) times the standard deviation of the rows, with ddof=1."""
        return weighted_sum(self.values, self.multiplicity)

    @property
    def values(self) -> np.ndarray:
        """The elpd of one row of each cell, (C,)."""
        return self.cells["elpd"].to_numpy(float)

    @property
    def multiplicity(self) -> np.ndarray:
        """The rows of each cell, (C,)."""
        return self.cells["multiplicity"].to_numpy(float)

    @property
    def is_finite(self) -> bool:
        """Whether every value is finite."""
        return bool(np.isfinite(self.values).all())


def rows_left_out(run: Candidate) -> Scores:
    """elpd_loo of a run."""
    return _scores(run.pointwise.set_index(cell_of(run.pointwise)), run.mcse)


def groups_left_out(run: Candidate) -> Scores | None:
    """elpd_leave_group_out of a run, if it was computed; its refits are independent."""
    if run.groups_out is None:
        return None
    cells = run.groups_out.set_index("group").assign(multiplicity=1)
    return _scores(cells, float(np.sqrt(np.sum(cells["mcse"].to_numpy(float) ** 2))))


def _scores(cells: pd.DataFrame, mcse: float) -> Scores:
    """Sorted scores; all NaN if one is not finite, so that no sum hides it."""
    cells = cells[["multiplicity", "elpd"]].sort_index()
    return Scores(cells if np.isfinite(cells["elpd"]).all() else cells.assign(elpd=np.nan), mcse)


@dataclass(frozen=True)
class Pooled:
    """The scores of a model.

    Attributes
    ----------
    z : of each run, its distance from the pooled total in Monte Carlo standard errors of this distance; NaN if unknown
    spread : standard deviation of the runs' totals; NaN of one run
    """

    scores: Scores
    z: np.ndarray
    spread: float


def pooled(runs: Sequence[Scores]) -> Pooled:
    """Pool independent runs of one model, by cell.

    The weights are 1 / mcse^2; they are equal if an error is unknown or 0. The Monte Carlo error of the pooled value is
    (sum 1 / mcse^2)^(-1/2), times the scale factor sqrt(chi^2 / (R - 1)) if that is above 1; with unknown errors it is
    the standard error of the mean of the runs.

    References
    ----------
    Particle Data Group (2024), Phys. Rev. D 110, 030001, section 5.2.2 of the introduction: the scale factor.
    """
    if len(runs) == 1:
        return Pooled(runs[0], np.full(1, np.nan), float("nan"))
    mcse, totals = (np.array(column) for column in ([each.mcse for each in runs], [each.total[0] for each in runs]))
    spread = float(totals.std(ddof=1))
    is_known = bool(np.all(np.isfinite(mcse) & (mcse > 0)))
    precision = 1 / mcse**2 if is_known else np.ones(len(runs))
    weights = precision / precision.sum()
    cells = runs[0].cells.assign(elpd=np.stack([each.values for each in runs], axis=1) @ weights)
    if not is_known:
        return Pooled(Scores(cells, spread / np.sqrt(len(runs))), np.full(len(runs), np.nan), spread)
    off, error = totals - weights @ totals, precision.sum() ** -0.5
    scale = np.sqrt(np.sum((off / mcse) ** 2) / (len(runs) - 1))
    return Pooled(Scores(cells, float(error * max(1.0, scale))), off / np.sqrt(mcse**2 - error**2), spread)
