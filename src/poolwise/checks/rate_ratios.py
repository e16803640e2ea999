"""Effects of covariates to rate ratios, exp(beta): what multiplies a rate.

A number multiplies the rate by exp(beta) for each standard deviation, and by exp(beta / scale) for each unit of its
column; a level multiplies it by exp(beta) against the reference level.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from poolwise.checks.base import Check, FitView, Result, Settings
from poolwise.checks.group_contrasts import TAILS, share_greater
from poolwise.checks.groups import probability
from poolwise.model.effects import site_of
from poolwise.text import number, one_line, short

RATIOS = ["ratio", *(f"ratio_{share:.0%}" for share in TAILS)]  # median and central 94% interval


def run(view: FitView, _: Settings) -> Result:
    """The ratio of each effect."""
    if not view.counts.effects:
        return Result()
    table = rate_ratios(view)
    return Result(
        metrics={f"rate_ratio/{name}": float(ratio) for name, ratio in table["ratio"].items()},
        lines=tuple(_lines(table)),
        tables={"rate_ratios": table},
        shown_in=("rate_ratios",),
        value=table,
    )


CHECK = Check("rate_ratios", "rate_ratios", run)


def rate_ratios(view: FitView) -> pd.DataFrame:
    """One row per effect.

    Returns
    -------
    against : the reference level; empty for a number
    ratio : median of exp(beta), of a number for one unit more in its column, with its central 94% interval
    p_above_1 : that the rate grows
    mean, sd, per_sd : of a number, its mean and standard deviation, and the median ratio for one sd; NaN for levels
    """
    rows = {}
    for covariate in view.counts.covariates:
        against, is_number = covariate.levels[0] if covariate.levels else "", not covariate.levels
        for name in covariate.effects:
            beta = view.posterior[site_of(name)].values.reshape(-1)
            middle, low, high = np.exp(np.quantile(beta / covariate.scale, [0.5, *TAILS]))
            of_sd = (covariate.centre, covariate.scale, np.exp(np.median(beta))) if is_number else (np.nan,) * 3
            rows[name] = (against, middle, low, high, share_greater(beta, 0.0), *of_sd)
    columns = ["against", *RATIOS, "p_above_1", "mean", "sd", "per_sd"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("effect")


def _lines(table: pd.DataFrame) -> Iterator[str]:
    """A sentence each."""
    for name, row in table.iterrows():
        what = f"against {short(one_line(row['against']))}" if row["against"] else "for one more"
        ratio, low, high = (number(row[column]) for column in RATIOS)
        yield (
            f"{short(one_line(str(name)))}, {what}: rate ratio {ratio} ({low} to {high}), P(ratio > 1) "
            f"{probability(row['p_above_1'])}"
        )
