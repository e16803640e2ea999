"""The scores of two models to their difference, with the errors that it has.

    difference = sum_c m_c (a_c - b_c),    its se^2 = N Var_m(a - b),    N = sum_c m_c,

with Var_m the variance under the weights m_c / N: the error over further rows of these groups. Rows of one group share
its rate, so the error over other groups takes a group as one draw,

    se_groups^2 = G / (G - 1) sum_g (d_g - n_g difference / N)^2,

with d_g the sum of a - b over the n_g rows of group g. The Monte Carlo error of a difference is that of two independent
runs.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import norm

from poolwise.comparison.candidates import CELL, STRATUM
from poolwise.comparison.scores import Scores

# Sivula, Magnusson, Matamoros and Vehtari (2025), doi:10.48550/arXiv.2008.10296: below 4 the error of a difference is
# not known well enough to distinguish two models, and with few rows its se is too small.
TIE_DIFFERENCE, TIE_ERRORS = 4.0, 2.0
FEW_ROWS = 100


@dataclass(frozen=True)
class Difference:
    """elpd of a model minus that of another.

    Attributes
    ----------
    elpd_diff, dse : the difference and its standard error over rows, with ddof=0 as in ArviZ
    dse_groups : its standard error over groups; NaN unless groups have several rows and both models the same groups
    diff_mcse : its Monte Carlo standard error; NaN if unknown
    p_worse : probability of a negative difference, by a normal distribution with sd `dse`; NaN if it is exactly 0
    diag_diff : why `dse` and `p_worse` may mislead, as in ArviZ and R's loo: `N < 100`, `|diff| < 4`, or empty
    """

    elpd_diff: float
    dse: float
    dse_groups: float
    diff_mcse: float
    p_worse: float
    diag_diff: str


def difference(one: Scores, other: Scores) -> Difference:
    """The difference of two models on the same rows, or the same groups left out.

    If they group the rows in different ways, `dse` is the largest that is possible; see `paired`.
    """
    a, b, multiplicity = paired(one.cells, other.cells)
    total, dse = float(multiplicity @ (a - b)), standard_error(a, b, multiplicity)
    return Difference(
        elpd_diff=total,
        dse=dse,
        dse_groups=_error_by_group(one.cells, other.cells),
        diff_mcse=0.0 if one is other else float(np.hypot(one.mcse, other.mcse)),
        p_worse=float(norm.cdf(0, total, dse + 1e-12)) if total else float("nan"),
        diag_diff=_caution(total, int(multiplicity.sum())),
    )


def is_tie(elpd_diff: float, dse: float, mcse: float = 0.0) -> bool:
    """Whether a difference is too small to distinguish two models.

    It is if it does not exceed 4 by two Monte Carlo errors, or is under two of its errors, the standard error and the
    Monte Carlo error together. An unknown Monte Carlo error counts as 0.
    """
    mcse = float(np.nan_to_num(mcse))
    far = TIE_DIFFERENCE + TIE_ERRORS * mcse, TIE_ERRORS * float(np.hypot(dse, mcse))
    return abs(elpd_diff) < max(far)


def are_same_cells(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    """Whether two models group the rows in the same way."""
    return one.index.equals(other.index) and one["multiplicity"].equals(other["multiplicity"])


def paired(
    one: pd.DataFrame, other: pd.DataFrame, *, is_least: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The values of two models for the same rows, and how many rows have them; (P,) each.

    With one grouping a pair is a cell. With two groupings it is known which rows agree in exposure and count, but not
    which row of the one is which of the other: the values are paired in opposite orders within each stratum, which
    gives the largest variance of their difference (rearrangement inequality).

    Parameters
    ----------
    is_least : pair in the same order instead, for the smallest variance
    """
    if are_same_cells(one, other):
        return one["elpd"].to_numpy(float), other["elpd"].to_numpy(float), one["multiplicity"].to_numpy(float)
    sides = [
        cells.reset_index().sort_values([*STRATUM, "elpd"], ascending=[True, True, is_ascending])
        for cells, is_ascending in ((one, True), (other, is_least))
    ]
    ends = [side["multiplicity"].to_numpy(int).cumsum() for side in sides]
    joint = np.union1d(*ends)  # strata have the same rows on both sides, so none straddles two
    a, b = (side["elpd"].to_numpy(float)[np.searchsorted(end, joint)] for side, end in zip(sides, ends, strict=True))
    return a, b, np.diff(joint, prepend=0).astype(float)


def standard_error(a: np.ndarray, b: np.ndarray, multiplicity: np.ndarray) -> float:
    """The standard error of the difference of paired values, over rows, with ddof=0."""
    apart = a - b
    return float(np.sqrt(multiplicity @ (apart - multiplicity @ apart / multiplicity.sum()) ** 2))


def _error_by_group(one: pd.DataFrame, other: pd.DataFrame) -> float:
    if list(one.index.names)[: len(CELL)] != CELL or not are_same_cells(one, other):
        return float("nan")
    rows = one["multiplicity"]
    apart = (rows * (one["elpd"] - other["elpd"])).groupby(level=0).sum()
    size = rows.groupby(level=0).sum()
    num_groups = len(size)
    if num_groups < 2 or size.max() == 1:
        return float("nan")
    off = apart - size * apart.sum() / size.sum()
    return float(np.sqrt(num_groups / (num_groups - 1) * np.sum(off.to_numpy(float) ** 2)))


def _caution(total: float, num_rows: int) -> str:
    if abs(total) > 0 and num_rows < FEW_ROWS:
        return f"N < {FEW_ROWS}"
    return f"|diff| < {TIE_DIFFERENCE:g}" if 0 < abs(total) < TIE_DIFFERENCE else ""
