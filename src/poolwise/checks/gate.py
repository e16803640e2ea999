"""Summary, sampler statistics and LOO to the verdict.

Two judgements: the verdict on the draws, `trusted` if every condition of the gate holds, otherwise `suspect`; and the
model check, `passed` or `failed`, or `not checked` if the draws cannot tell. Each has its reasons in words.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from arviz_stats.base import array_stats

from poolwise.checks.conditions import Condition, failures, limits
from poolwise.checks.loo import Loo
from poolwise.text import number_of

# The gate, besides the limits of `conditions`.
# Betancourt (2016), arXiv:1604.00695: below 0.3 the momentum cannot carry the chain across the energies.
BFMI_MIN = 0.3
# Total variation between the law of independent draws and the posterior: 0.1% is far below the error of any estimate
# from fewer than a million draws.
EXCESS_MAX = 1e-3


@dataclass(frozen=True)
class ModelCheck:
    """Whether the model suits the data.

    Attributes
    ----------
    conditions : that the counts satisfy if the model is true; none if it was not checked
    draws_are_trusted : whether the draws behind them are
    loo_is_reliable : whether elpd_loo is; some conditions need it, so a check passes only if it is
    """

    conditions: tuple[Condition, ...] = ()
    draws_are_trusted: bool = True
    loo_is_reliable: bool = True

    @property
    def status(self) -> str:
        """`passed`, `failed`, or `not checked`: nothing was checked, or what was checked is in doubt."""
        if self.reasons:
            return "failed"
        return "passed" if self.conditions and not self.doubt else "not checked"

    @property
    def doubt(self) -> str:
        """Why the conditions say nothing of the model, or nothing more than how it fails."""
        if not self.conditions or (self.draws_are_trusted and self.loo_is_reliable):
            return ""
        return "elpd_loo is not reliable" if self.draws_are_trusted else "the draws are suspect"

    @property
    def reasons(self) -> tuple[str, ...]:
        """The sentences of the conditions that do not hold; none if the draws are suspect."""
        return failures(self.conditions) if self.draws_are_trusted else ()

    @property
    def remedies(self) -> tuple[str, ...]:
        """The settings to try, each once."""
        found = (setting for each in self.conditions for setting in each.remedy)
        return tuple(dict.fromkeys(found)) if self.draws_are_trusted else ()


@dataclass(frozen=True)
class Verdict:
    """Whether the draws can be trusted: the conditions that decide it, and the numbers behind them.

    Attributes
    ----------
    engine : metrics of the statistics that the engine gives: divergences of NUTS, acceptance of independent draws
    sampling : what they say, in a sentence: "0 divergences"
    """

    conditions: tuple[Condition, ...]
    r_hat_max: float
    ess_bulk_min: float
    ess_tail_min: float
    engine: Mapping[str, float]
    sampling: str
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

    def model_check(self, conditions: tuple[Condition, ...]) -> ModelCheck:
        """The model check by these conditions, in view of what this verdict says of the draws and of elpd_loo."""
        failed = [each for each in self.conditions if not each.passed]
        return ModelCheck(
            conditions,
            draws_are_trusted=all(each.is_of_loo for each in failed),
            loo_is_reliable=not any(each.is_of_loo for each in failed),
        )


def judge(summary: pd.DataFrame, sample_stats: xr.Dataset, leave_one_out: Loo, *, max_tree_depth: int) -> Verdict:
    """The gate. The engine's part of it follows from the statistics that it gives."""
    found = _independent(sample_stats) if "log_ratio" in sample_stats else _transitions(sample_stats, max_tree_depth)
    return Verdict(
        conditions=(
            *(limit.condition(summary) for limit in limits(sample_stats.sizes["chain"])),
            *found.conditions,
            *_of_loo(leave_one_out),
        ),
        r_hat_max=float(summary["r_hat"].max(skipna=False)),
        ess_bulk_min=float(summary["ess_bulk"].min(skipna=False)),
        ess_tail_min=float(summary["ess_tail"].min(skipna=False)),
        engine=found.metrics,
        sampling=found.words,
        pareto_k_max=float(np.max(leave_one_out.pareto_k)),
        pareto_k_bad=leave_one_out.bad_rows,
    )


@dataclass(frozen=True)
class _OfEngine:
    metrics: Mapping[str, float]
    words: str
    conditions: tuple[Condition, ...]


def _independent(sample_stats: xr.Dataset) -> _OfEngine:
    """Draws by rejection: the share of proposals kept, and the mass of the posterior above the bound.

    A draw with the ratio r of posterior to bound was kept with probability min(1, r), so it stands for 1 / min(1, r)
    proposals, and for a share max(0, 1 - 1 / r) of mass that was missed.
    """
    log_ratio = sample_stats["log_ratio"].values
    acceptance = 1.0 / float(np.mean(np.exp(-np.minimum(log_ratio, 0.0))))
    excess = float(np.mean(np.maximum(0.0, -np.expm1(-log_ratio))))
    return _OfEngine(
        {"acceptance": acceptance, "excess": excess},
        f"independent draws ({acceptance:.1%} of proposals kept)",
        (
            Condition.of(
                name="independent draws: mass of the posterior that the proposals miss",
                value=f"{excess:.2%}",
                limit=f"at most {EXCESS_MAX:.1%}",
                passed=excess <= EXCESS_MAX,
                otherwise=f"the proposals miss {excess:.2%} of the posterior; use sampler=nuts",
            ),
        ),
    )


def _transitions(sample_stats: xr.Dataset, max_tree_depth: int) -> _OfEngine:
    """Draws of NUTS: divergent transitions, E-BFMI, and trajectories cut at the largest depth."""
    bfmi = np.asarray(array_stats.bfmi(sample_stats["energy"].transpose("chain", "draw").values))
    diverging = sample_stats["diverging"].values
    divergences = int(diverging.sum())
    hits = int((sample_stats["tree_depth"] >= max_tree_depth).sum())
    return _OfEngine(
        {"divergences": divergences, "bfmi_min": float(bfmi.min()), "tree_depth_hits": hits},
        f"{divergences} divergences",
        (
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
        ),
    )


def _of_loo(loo: Loo) -> tuple[Condition, Condition]:
    return (
        Condition.of(
            name="Pareto k, the largest: does one row decide the result?",
            value=f"{np.max(loo.pareto_k):.2f}",
            limit=f"at most {loo.k_threshold:.2f}",
            passed=not loo.bad_rows,
            otherwise=f"Pareto k is {_worst(loo)} for {number_of(loo.bad_rows, 'row')}: elpd_loo is not reliable",
            is_of_loo=True,
            shown_in="pareto_k",
        ),
        Condition.of(
            name="elpd_loo and its Monte Carlo error",
            value=f"{loo.elpd:.2f}, {loo.mcse:.2g}",
            limit="finite",
            passed=bool(np.isfinite([loo.elpd, loo.mcse]).all()),
            otherwise="elpd_loo is not finite",
            is_of_loo=True,
            shown_in="pareto_k",
        ),
    )


def _worst(loo: Loo) -> str:
    """The Pareto k of the rows that fail, in words: above the threshold, undefined, or either."""
    largest = np.nanmax(loo.pareto_k, initial=-np.inf)
    above = f"above {loo.k_threshold:.2f} (worst {largest:.2f})" if largest > loo.k_threshold else ""
    undefined = "undefined" if np.isnan(loo.pareto_k).any() else ""
    return " or ".join(filter(None, [above, undefined]))
