"""A fit and the exact answer to a table of differences in Monte Carlo errors.

Parameters are held against their exact mean and standard deviation, z = (estimate - exact) / Monte Carlo error, and
elpd_loo against its exact value. A fit agrees if every |z| is at most max(4, Phi^-1(1 - 0.0005 / K)), K of them: the
rule that two runs are held against each other by.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from poolwise.checks import Loo
from poolwise.exact import Exact
from poolwise.judgement import threshold


@dataclass(frozen=True)
class Comparison:
    """A fit beside the exact answer.

    Attributes
    ----------
    table : a row a quantity, `mean of mu`, `sd of mu`, ..., `elpd_loo` and `log marginal likelihood`, which no fit has:
        `fit`, `exact`, `mcse` (Monte Carlo error of the fit) and `z`; NaN where it does not exist or is not known
    elpd_difference, elpd_z : elpd_loo of the fit less the exact one, and that in Monte Carlo errors
    log_marginal : log p(y)
    z_max : the largest |z| of all; NaN if there is none
    limit : what |z| may be
    line : all of it in words
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


def compare(summary: pd.DataFrame, loo: Loo, exact: Exact) -> Comparison:
    """A fit held against the exact answer of its model and counts.

    Parameters
    ----------
    summary : from `checks.summarise`: `mean`, `sd`, `mcse_mean`, `mcse_sd` by parameter (`mu`, `lam.<label>`)
    loo : its `elpd` and `mcse` are looked at; `mcse` is 0 if the value is exact
    """
    rows: dict[str, tuple[Any, float, Any]] = {}
    for moment, values in (("mean", exact.mean), ("sd", exact.sd)):
        for name, value in _by_parameter(values, list(summary.index)).items():
            rows[f"{moment} of {name}"] = (summary.at[name, moment], value, summary.at[name, f"mcse_{moment}"])
    rounding = max(exact.error, 1e-9 * abs(exact.elpd_loo))  # an exact value replaced by an exact value has no mcse
    rows["elpd_loo"] = (loo.elpd, exact.elpd_loo, max(loo.mcse, rounding))
    rows["log marginal likelihood"] = (np.nan, exact.log_marginal, np.nan)
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["fit", "exact", "mcse"], dtype=float)
    table.index.name = "quantity"
    table["z"] = (table["fit"] - table["exact"]) / table["mcse"].where(table["mcse"] > 0)
    sizes = table["z"].abs().dropna()
    limit, difference = threshold(max(len(sizes), 1)), float(loo.elpd - exact.elpd_loo)
    return Comparison(
        table=table,
        elpd_difference=difference,
        elpd_z=float(table["z"]["elpd_loo"]),
        log_marginal=exact.log_marginal,
        z_max=float(sizes.max()),
        limit=limit,
        line=_line(sizes, limit, difference, exact),
    )


def _by_parameter(moments: dict[str, np.ndarray], names: list[str]) -> dict[str, float]:
    """Moments by site as moments by parameter; the rates of groups stand in a summary in the order of the groups."""
    found: dict[str, float] = {}
    for site, values in moments.items():
        of_site = [name for name in names if name == site or name.startswith(f"{site}.")]
        found |= dict(zip(of_site, np.ravel(values).tolist(), strict=True))
    return found


def _line(sizes: pd.Series, limit: float, difference: float, exact: Exact) -> str:
    if sizes.empty:
        judgement = "there is nothing to hold the fit against"
    elif (worst := sizes.max()) <= limit:
        judgement = f"the fit agrees: the largest of {len(sizes)} |z| is {worst:.1f}, {sizes.idxmax()}"
    else:
        beyond = sizes[sizes > limit].sort_values(ascending=False)
        more = f" and {len(beyond) - 1} more" if len(beyond) > 1 else ""
        judgement = (
            f"the fit differs: {beyond.index[0]}{more} of {len(sizes)}, |z| up to {worst:.1f}, above the {limit:.1f} "
            "that Monte Carlo error allows"
        )
    return (
        f"exact answer: {judgement}; elpd_loo {exact.elpd_loo:.2f} (the fit {difference:+.3f}), "
        f"log p(y) {exact.log_marginal:.3f}"
    )
