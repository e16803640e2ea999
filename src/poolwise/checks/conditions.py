"""Numbers of a fit to conditions of its verdict: name, value, limit, passed, and the reason for a failure.

The report, the note, the judgement of two runs and the refits of `leave_group_out` read the same limits here.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from poolwise.text import one_line

# Vehtari et al. (2021), Bayesian Analysis 16(2), doi:10.1214/20-BA1221: R-hat and ESS.
R_HAT_MAX = 1.01
ESS_PER_CHAIN = 100


@dataclass(frozen=True)
class Condition:
    """One condition of the verdict.

    Attributes
    ----------
    name : the quantity, as tables name it: "R-hat, the largest: do the chains agree?"
    value, limit : as printed: "1.0007", "at most 1.01"
    passed : whether it holds; NaN does not pass
    sentence : the reason for a failure; empty if it passes
    remedy : the settings to try if it fails, such as `likelihood=negative_binomial`
    is_of_loo : whether a failure casts doubt on elpd_loo only, not on the draws
    shown_in : the figure that shows it; empty if there is none
    """

    name: str
    value: str
    limit: str
    passed: bool
    sentence: str = ""
    remedy: tuple[str, ...] = ()
    is_of_loo: bool = False
    shown_in: str = ""

    @classmethod
    def of(
        cls,
        *,
        name: str,
        value: str,
        limit: str,
        passed: bool,
        otherwise: str,
        remedy: tuple[str, ...] = (),
        is_of_loo: bool = False,
        shown_in: str = "",
    ) -> "Condition":
        """With `otherwise` as its sentence and its remedy if it fails."""
        sentence, tried = ("", ()) if passed else (otherwise, remedy)
        return cls(name, value, limit, passed, sentence, tried, is_of_loo, shown_in)


def failures(conditions: Iterable[Condition]) -> tuple[str, ...]:
    """The sentences of the conditions that do not hold."""
    return tuple(each.sentence for each in conditions if not each.passed)


@dataclass(frozen=True)
class Limit:
    """A limit that every parameter must satisfy.

    Attributes
    ----------
    column : of a summary
    label, question : name of the quantity, and the question that it answers
    bound : the largest value that passes if `is_upper`, else the smallest
    form : format of a value in a sentence
    shown_in : the figure that shows it
    """

    column: str
    label: str
    question: str
    bound: float
    is_upper: bool
    form: str
    shown_in: str

    def holds(self, values: Any) -> Any:
        """Whether values pass; NaN does not."""
        return values <= self.bound if self.is_upper else values >= self.bound

    def failure(self, summary: pd.DataFrame, *, whose: str = "") -> str:
        """A sentence on the worst parameter; empty if all pass. NaN is worst."""
        failed = summary[self.column][~self.holds(summary[self.column])]
        if failed.empty:
            return ""
        excess = (failed - self.bound).abs().fillna(np.inf)
        worst = int(excess.to_numpy().argmax())
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        value, side = format(failed.iloc[worst], self.form), "above" if self.is_upper else "below"
        return f"{self.label} of {one_line(str(failed.index[worst]))} is {value}{whose}, {side} {self.bound:g}{more}"

    def condition(self, summary: pd.DataFrame) -> Condition:
        """All parameters as one condition."""
        values = summary[self.column]
        worst = values.max(skipna=False) if self.is_upper else values.min(skipna=False)
        return Condition(
            name=f"{self.label}, the {'largest' if self.is_upper else 'smallest'}: {self.question}",
            value=f"{worst:.4f}" if self.is_upper else f"{worst:,.0f}",
            limit=f"at most {self.bound:g}" if self.is_upper else f"at least {self.bound:,.0f}",
            passed=bool(self.holds(values).all()),
            sentence=self.failure(summary),
            shown_in=self.shown_in,
        )


def limits(num_chains: int) -> tuple[Limit, Limit, Limit]:
    """The limits of R-hat, bulk ESS and tail ESS."""
    least = float(ESS_PER_CHAIN * num_chains)
    return (
        Limit("r_hat", "R-hat", "do the chains agree?", R_HAT_MAX, True, ".3f", "rank"),
        Limit("ess_bulk", "bulk ESS", "independent draws behind a mean", least, False, ".0f", "trace"),
        Limit("ess_tail", "tail ESS", "independent draws behind an interval", least, False, ".0f", "trace"),
    )
