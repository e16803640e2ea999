"""Ranks of all simulations to findings: the verdict, its reasons, metrics and tables."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from poolwise.calibration import ranks as rank_statistics
from poolwise.calibration.fits import Recovered
from poolwise.errors import FitError
from poolwise.runs.metrics import PARAMETERS_SHOWN, metric_name


@dataclass(frozen=True)
class Findings:
    """Results of a calibration.

    Attributes
    ----------
    table : one row per quantity, see `ranks.judge`, with `ess_per_draw` (median), `ess_per_draw_min`, `autocorrelation`
    lost : simulations without a finite start, draw or table
    reasons : why it is miscalibrated; empty if it is calibrated
    """

    recovered: Recovered
    table: pd.DataFrame
    lost: int
    reasons: tuple[str, ...]

    @property
    def status(self) -> str:
        """The verdict in one word."""
        return "miscalibrated" if self.reasons else "calibrated"

    @property
    def divergent(self) -> int:
        """Simulations whose fit diverged."""
        return int(np.sum(self.recovered.divergences > 0))


def examine(found: Recovered) -> Findings:
    """Judge the ranks of all fitted simulations; an unfitted simulation makes the variant miscalibrated."""
    fitted = found.is_fitted
    lost = int(np.sum(~fitted))
    if lost == len(fitted):
        raise FitError(
            f"none of {lost} simulations could be fitted: no table, or no starting point with a finite density. "
            "The priors are too wide. Compare prior.* with the counts you expect."
        )
    num_draws = found.num_draws
    table = rank_statistics.judge(found.rank[fitted], found.names, num_draws=num_draws)
    table["ess_per_draw"] = np.median(found.ess[fitted], axis=0) / num_draws
    table["ess_per_draw_min"] = np.min(found.ess[fitted], axis=0) / num_draws
    table["autocorrelation"] = np.mean(found.autocorrelation[fitted], axis=0)
    reasons = [f"{name}: {how}" for name, how in table["how"].items() if how]
    if lost:
        reasons.append(f"{lost} of {len(fitted)} simulations could not be fitted: no finite start, draw or table")
    return Findings(found, table, lost, tuple(reasons))


def metrics(findings: Findings) -> dict[str, float]:
    """The verdict in numbers, the independence of the draws, and p by quantity."""
    table, found = findings.table, findings.recovered
    return {
        "calibrated": 0.0 if findings.reasons else 1.0,
        "sbc_p_min": float(table["p"].min()),
        "simulations": float(found.done),
        "divergent_simulations": float(findings.divergent),
        "lost_simulations": float(findings.lost),
        "ess_per_draw_min": float(table["ess_per_draw_min"].min()),
        "ess_per_draw_median": float(np.median(found.ess[found.is_fitted]) / found.num_draws),
        "autocorrelation_mean": float(table["autocorrelation"].mean()),
        "seconds": found.seconds,
        **{f"sbc_p/{metric_name(str(name))}": float(p) for name, p in table["p"].head(PARAMETERS_SHOWN).items()},
    }


def ranks_table(found: Recovered) -> pd.DataFrame:
    """One row per simulation: number, whether it was fitted, divergences, and truth and rank of every quantity."""
    columns: Mapping[str, Any] = {
        "simulation": np.arange(found.done),
        "is_fitted": found.is_fitted,
        "divergences": found.divergences,
        **{f"truth {name}": found.truth[:, q] for q, name in enumerate(found.names)},
        **{
            f"rank {name}": pd.array(np.where(found.is_fitted, found.rank[:, q], -1)).astype("Int64")
            for q, name in enumerate(found.names)
        },
    }
    table = pd.DataFrame(columns)
    ranks = [name for name in table if str(name).startswith("rank ")]
    table.loc[~found.is_fitted, ranks] = pd.NA
    return table
