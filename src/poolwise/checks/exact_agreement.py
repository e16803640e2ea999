"""A fit and the exact answer to a table of differences in Monte Carlo errors.

Parameters are compared with their exact mean and standard deviation, z = (estimate - exact) / Monte Carlo error, and
elpd_loo with its exact value. A fit agrees if every |z| of K is at most `agreement.threshold(K)`, the rule that also
compares two runs. A fit that differs is suspect.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from poolwise.checks.agreement import threshold
from poolwise.checks.base import Check, FitView, Result, Settings
from poolwise.checks.conditions import Condition
from poolwise.checks.exact import solve
from poolwise.checks.exact.solve import Exact
from poolwise.checks.loo import Loo
from poolwise.text import one_line


@dataclass(frozen=True)
class Agreement:
    """A fit and the exact answer.

    Attributes
    ----------
    table : one row per quantity, `mean of mu`, `sd of mu`, ..., `elpd_loo` and `log marginal likelihood` (exact only):
        `fit`, `exact`, `mcse` (Monte Carlo error of the fit) and `z`; NaN if it does not exist or is not known
    elpd_difference, elpd_z : elpd_loo of the fit minus the exact one, and the same in Monte Carlo errors
    log_marginal : log p(y)
    z_max : the largest |z| of all; NaN if there is none
    limit : largest |z| that agrees
    line : the comparison in one line
    """

    table: pd.DataFrame
    elpd_difference: float
    elpd_z: float
    log_marginal: float
    z_max: float
    limit: float
    line: str

    @property
    def agrees(self) -> bool:
        """Whether no z is beyond the limit."""
        return bool(self.z_max <= self.limit)


def run(view: FitView, settings: Settings) -> Result:
    """The fit and the exact answer, or why there is none."""
    why = solve.reason_against(view.model, view.counts)
    if not why:
        try:
            answer = solve.solve(view.model, view.counts, view.prior_values)
            return result(compare(view.summary, view.loo, answer), x64=settings.device.x64)
        except solve.NotExact as error:
            why = str(error)
    return Result(lines=(f"no exact answer: {why.removesuffix('.')}",))


CHECK = Check("exact_agreement", "exact", run, decides=True)


def result(found: Agreement, *, x64: bool = True) -> Result:
    """The result of a comparison; `x64` is False for draws in single precision."""
    return Result(
        metrics={
            "log_marginal_likelihood": found.log_marginal,
            "exact_z_max": found.z_max,
            "exact_elpd_loo_difference": found.elpd_difference,
        },
        tags={"exact": "agrees" if found.agrees else "differs"},
        lines=(found.line,),
        tables={"exact": found.table},
        is_exact=found.agrees,
        conditions=(
            Condition.of(
                name="z-score against the exact answer, the largest: are these draws of this posterior?",
                value=f"{found.z_max:.1f}",
                limit=f"at most {found.limit:.1f}",
                passed=found.agrees,
                otherwise=_remedy(found, x64=x64),
            ),
        ),
        value=found,
    )


def _remedy(found: Agreement, *, x64: bool) -> str:
    """The sentence on a fit that differs, with the remedy."""
    sizes = found.table["z"].abs().dropna()
    if sizes.empty:
        return "the fit cannot be compared with the exact answer: no Monte Carlo error is known"
    others = int((sizes > found.limit).sum()) - 1
    more = f" (and {others} more beyond {found.limit:.1f})" if others > 0 else ""
    return (
        f"the fit differs from the exact answer: {one_line(str(sizes.idxmax()))} is off by {sizes.max():.1f} "
        f"Monte Carlo errors{more}; do not use these draws. "
        + ("" if x64 else "They are in single precision, which may be the cause: repeat with device.x64=true. ")
        + "Sample longer, or check that the priors suit the unit of the data"
    )


def compare(summary: pd.DataFrame, loo: Loo, answer: Exact) -> Agreement:
    """Compare a fit with the exact answer of its model and counts.

    Parameters
    ----------
    summary : from `summary.summarise`: `mean`, `sd`, `mcse_mean`, `mcse_sd` by parameter (`mu`, `lam.<label>`)
    loo : its `elpd` and `mcse` are used; `mcse` is 0 if the value is exact
    """
    rows: dict[str, tuple[Any, float, Any]] = {}
    for moment, values in (("mean", answer.mean), ("sd", answer.sd)):
        for name, value in _by_parameter(values, list(summary.index)).items():
            rows[f"{moment} of {name}"] = (summary.at[name, moment], value, summary.at[name, f"mcse_{moment}"])
    rounding = max(answer.error, 1e-9 * abs(answer.elpd_loo))  # an exact value replaced by an exact value has no mcse
    rows["elpd_loo"] = (loo.elpd, answer.elpd_loo, max(loo.mcse, rounding))
    rows["log marginal likelihood"] = (np.nan, answer.log_marginal, np.nan)
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["fit", "exact", "mcse"], dtype=float)
    table.index.name = "quantity"
    table["z"] = (table["fit"] - table["exact"]) / table["mcse"].where(table["mcse"] > 0)
    sizes = table["z"].abs().dropna()
    limit, difference = threshold(max(len(sizes), 1)), float(loo.elpd - answer.elpd_loo)
    return Agreement(
        table=table,
        elpd_difference=difference,
        elpd_z=float(table["z"]["elpd_loo"]),
        log_marginal=answer.log_marginal,
        z_max=float(sizes.max()),
        limit=limit,
        line=_line(sizes, limit, difference, answer),
    )


def _by_parameter(moments: dict[str, np.ndarray], names: list[str]) -> dict[str, float]:
    """Moments by site as moments by parameter; a summary lists the rates in the order of the groups."""
    found: dict[str, float] = {}
    for site, values in moments.items():
        of_site = [name for name in names if name == site or name.startswith(f"{site}.")]
        found |= dict(zip(of_site, np.ravel(values).tolist(), strict=True))
    return found


def _line(sizes: pd.Series, limit: float, difference: float, answer: Exact) -> str:
    if sizes.empty:
        judgement = "there is nothing to compare the fit with"
    elif (worst := sizes.max()) <= limit:
        judgement = f"the fit agrees: the largest of {len(sizes)} |z| is {worst:.1f}, {one_line(str(sizes.idxmax()))}"
    else:
        beyond = sizes[sizes > limit].sort_values(ascending=False)
        more = f" and {len(beyond) - 1} more" if len(beyond) > 1 else ""
        judgement = (
            f"the fit differs: {one_line(str(beyond.index[0]))}{more} of {len(sizes)}, |z| up to {worst:.1f}, "
            f"above the {limit:.1f} that Monte Carlo error allows"
        )
    return (
        f"exact answer: {judgement}; elpd_loo {answer.elpd_loo:.2f} (the fit {difference:+.3f}), "
        f"log p(y) {answer.log_marginal:.3f}"
    )
