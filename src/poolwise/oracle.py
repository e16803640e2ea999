"""A fit and the exact answer to a table of differences in Monte Carlo errors.

Parameters are held against their exact mean and standard deviation, z = (estimate - exact) / Monte Carlo error, and
elpd_loo against its exact value. A fit agrees if every |z| is at most max(4, Phi^-1(1 - 0.0005 / K)), K of them: the
rule that two runs are held against each other by.
"""

from dataclasses import dataclass

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
    table : a row a parameter of the fit that has an exact answer: `exact_mean`, `exact_sd`, `z_mean`, `z_sd`; NaN where
        a moment does not exist or its Monte Carlo error is not known
    elpd_difference, elpd_z : elpd_loo of the fit less the exact one, and that in Monte Carlo errors
    elpd_loo, log_marginal : the exact ones
    z_max : the largest |z| of all; NaN if there is none
    limit : what |z| may be
    line : all of it in words
    """

    table: pd.DataFrame
    elpd_difference: float
    elpd_z: float
    elpd_loo: float
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
    exact_mean, exact_sd = (_by_parameter(moments, list(summary.index)) for moments in (exact.mean, exact.sd))
    rows = summary[summary.index.isin(list(exact_mean))]
    table = pd.DataFrame({"exact_mean": exact_mean, "exact_sd": exact_sd}).reindex(rows.index)
    table["z_mean"] = _z(rows["mean"] - table["exact_mean"], rows["mcse_mean"])
    table["z_sd"] = _z(rows["sd"] - table["exact_sd"], rows["mcse_sd"])
    difference = loo.elpd - exact.elpd_loo
    rounding = max(exact.error, 1e-9 * abs(exact.elpd_loo))  # an exact value replaced by an exact value has no mcse
    elpd_z = difference / max(loo.mcse, rounding)
    z = {f"{moment} of {name}": row[f"z_{moment}"] for name, row in table.iterrows() for moment in ("mean", "sd")}
    sizes = pd.Series(z | {"elpd_loo": elpd_z}, dtype=float).abs().dropna()
    limit = threshold(max(len(sizes), 1))
    return Comparison(
        table=table,
        elpd_difference=float(difference),
        elpd_z=float(elpd_z),
        elpd_loo=exact.elpd_loo,
        log_marginal=exact.log_marginal,
        z_max=float(sizes.max()),
        limit=limit,
        line=_line(sizes, limit, float(difference), exact),
    )


def _by_parameter(moments: dict[str, np.ndarray], names: list[str]) -> dict[str, float]:
    """Moments by site as moments by parameter; the rates of groups stand in a summary in the order of the groups."""
    found: dict[str, float] = {}
    for site, values in moments.items():
        of_site = [name for name in names if name == site or name.startswith(f"{site}.")]
        found |= dict(zip(of_site, np.ravel(values).tolist(), strict=True))
    return found


def _z(difference: pd.Series, mcse: pd.Series) -> pd.Series:
    return difference / mcse.where(mcse > 0)


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
