"""Summary, sampler statistics and LOO to the verdict.

Two judgements are independent: the verdict on the draws, `trusted` if every condition of the gate holds, otherwise
`suspect`; and the model check, `passed` or `failed`. Each has its reasons in words.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from arviz_stats.base import array_stats

from poolwise.checks.conditions import Condition, failures, limits
from poolwise.checks.loo import Loo

# The gate, besides the limits of `conditions`.
# Betancourt (2016), arXiv:1604.00695: below 0.3 the momentum cannot carry the chain across the energies.
BFMI_MIN = 0.3


@dataclass(frozen=True)
class ModelCheck:
    """Whether the model suits the data.

    Attributes
    ----------
    conditions : that the counts satisfy if the model is true; none if it was not checked
    draws_are_trusted : whether the draws behind them are
    """

    conditions: tuple[Condition, ...] = ()
    draws_are_trusted: bool = True

    @property
    def status(self) -> str:
        """`passed`, `failed`, or `not checked`: nothing was checked, or all holds for draws that are suspect."""
        if self.reasons:
            return "failed"
        return "passed" if self.conditions and self.draws_are_trusted else "not checked"

    @property
    def reasons(self) -> tuple[str, ...]:
        """The sentences of the conditions that do not hold."""
        return failures(self.conditions)

    @property
    def remedies(self) -> tuple[str, ...]:
        """The settings to try, each once."""
        return tuple(dict.fromkeys(setting for each in self.conditions for setting in each.remedy))


@dataclass(frozen=True)
class Verdict:
    """Whether the draws can be trusted: the conditions that decide it, and the numbers behind them."""

    conditions: tuple[Condition, ...]
    r_hat_max: float
    ess_bulk_min: float
    ess_tail_min: float
    divergences: int
    bfmi_min: float
    tree_depth_hits: int
    pareto_k_max: float
    pareto_k_bad: int

    @property
    def status(self) -> str:
        """`trusted` if every condition holds, else `suspect`."""
        return "suspect" if self.reasons else "trusted"

    @property
    def reasons(self) -> tuple[str, ...]:
        """The sentences of the conditions that do not hold."""
        return failures(self.conditions)


def judge(summary: pd.DataFrame, sample_stats: xr.Dataset, leave_one_out: Loo, *, max_tree_depth: int) -> Verdict:
    """The gate."""
    bfmi = np.asarray(array_stats.bfmi(sample_stats["energy"].transpose("chain", "draw").values))
    diverging = sample_stats["diverging"].values
    return Verdict(
        conditions=(
            *(limit.condition(summary) for limit in limits(sample_stats.sizes["chain"])),
            *_of_transitions(diverging, bfmi),
            *_of_loo(leave_one_out),
        ),
        r_hat_max=float(summary["r_hat"].max(skipna=False)),
        ess_bulk_min=float(summary["ess_bulk"].min(skipna=False)),
        ess_tail_min=float(summary["ess_tail"].min(skipna=False)),
        divergences=int(diverging.sum()),
        bfmi_min=float(bfmi.min()),
        tree_depth_hits=int((sample_stats["tree_depth"] >= max_tree_depth).sum()),
        pareto_k_max=float(np.max(leave_one_out.pareto_k)),
        pareto_k_bad=leave_one_out.bad_rows,
    )


def _of_transitions(diverging: np.ndarray, bfmi: np.ndarray) -> tuple[Condition, Condition]:
    divergences = int(diverging.sum())
    return (
        Condition.of(
            name="divergent transitions: places the sampler could not follow",
            value=f"{divergences:,}",
            limit="0",
            passed=not divergences,
            otherwise=f"{divergences} of {diverging.size} transitions diverged",
            shown_in="trace",
        ),
        Condition.of(
            name="E-BFMI, the smallest: does the sampler reach the tails?",
            value=f"{bfmi.min():.2f}",
            limit=f"at least {BFMI_MIN}",
            passed=bool(np.all(bfmi >= BFMI_MIN)),
            otherwise=f"E-BFMI is {np.min(bfmi):.2f} in the worst chain, below {BFMI_MIN}",
            shown_in="energy",
        ),
    )


def _of_loo(loo: Loo) -> tuple[Condition, Condition]:
    return (
        Condition.of(
            name="Pareto k, the largest: does one row decide the result?",
            value=f"{np.max(loo.pareto_k):.2f}",
            limit=f"at most {loo.k_threshold:.2f}",
            passed=not loo.bad_rows,
            otherwise=f"Pareto k is {_worst(loo)} for {loo.bad_rows} rows: elpd_loo is not reliable",
            shown_in="pareto_k",
        ),
        Condition.of(
            name="elpd_loo and its Monte Carlo error",
            value=f"{loo.elpd:.2f}, {loo.mcse:.2g}",
            limit="finite",
            passed=bool(np.isfinite([loo.elpd, loo.mcse]).all()),
            otherwise="elpd_loo is not finite",
            shown_in="pareto_k",
        ),
    )


def _worst(loo: Loo) -> str:
    """The Pareto k of the rows that fail, in words: above the threshold, undefined, or either."""
    largest = np.nanmax(loo.pareto_k, initial=-np.inf)
    above = f"above {loo.k_threshold:.2f} (worst {largest:.2f})" if largest > loo.k_threshold else ""
    undefined = "undefined" if np.isnan(loo.pareto_k).any() else ""
    return " or ".join(filter(None, [above, undefined]))
