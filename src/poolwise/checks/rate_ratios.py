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
from poolwise.counts.cells import Counts
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
        lines=tuple(
            f"the rate ratio of {words} is {ratio} ({low} to {high}), above 1 with probability {above}"
            for words, (ratio, low, high), above in in_words(table, view.counts)
        ),
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


def in_words(table: pd.DataFrame, counts: Counts) -> Iterator[tuple[str, tuple[str, ...], str]]:
    """Of each effect: its words, its ratio with the interval, and the probability that it is above 1."""
    for covariate in counts.covariates:
        column, *levels = (short(one_line(text)) for text in (covariate.column, *covariate.levels))
        words = [f"{column} {level} against {levels[0]}" for level in levels[1:]] or [f"one unit more of {column}"]
        for each, name in zip(words, covariate.effects, strict=True):
            ratio, low, high, above = (float(table[column][name]) for column in (*RATIOS, "p_above_1"))
            yield each, (number(ratio), number(low), number(high)), probability(above)
