"""Counts to priors in the unit of the data.

A value of a prior may be the word `rate`, the pooled rate of the table (events per exposure), or `log_rate`, its
logarithm. `resolved` replaces the words by numbers, rounded to three digits, when the data are read; only the numbers
are recorded. Such a prior uses the data once, for its scale: its spread is wide enough that this hardly matters.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from poolwise.counts.cells import Counts

WORDS = ("rate", "log_rate")
# choices in conf/prior/<site> that, with these values, are the priors of conf/prior/scaled.yaml
IN_UNIT_OF_DATA: dict[str, tuple[str, dict[str, Any]]] = {
    "lam": ("log_normal", {"loc": "log_rate", "scale": 1.5}),
    "mu": ("log_normal", {"loc": "log_rate", "scale": 1.5}),
    "sigma": ("half_normal", {"scale": "rate"}),
}


def resolved(settings: Mapping[str, Mapping[str, Any]], counts: Counts) -> dict[str, dict[str, Any]]:
    """Settings of priors, site -> parameter -> value, with numbers for the words."""
    numbers = _numbers(counts)
    return {site: {key: _number(value, numbers) for key, value in prior.items()} for site, prior in settings.items()}


def overrides(sites: Iterable[str], counts: Counts) -> str:
    """Overrides of the command line that put the priors of these sites into the unit of the data."""
    numbers, words = _numbers(counts), []
    for site in sites:
        if site in IN_UNIT_OF_DATA:
            choice, values = IN_UNIT_OF_DATA[site]
            words += [f"prior/{site}={choice}"]
            words += [f"prior.{site}.{key}={_number(value, numbers):g}" for key, value in values.items()]
    return " ".join(words)


def _numbers(counts: Counts) -> dict[str, float]:
    rows = counts.cell_multiplicity
    rate = (rows @ counts.cell_count.astype(float) + 0.5) / (rows @ counts.cell_exposure)
    return {"rate": float(f"{rate:.3g}"), "log_rate": float(f"{np.log(rate):.3g}")}


def _number(value: Any, numbers: Mapping[str, float]) -> Any:
    return numbers.get(value, value) if isinstance(value, str) else value


def is_word_for(value: Any, *, any_real: bool) -> bool:
    """Whether a value is the word for a number that its parameter accepts."""
    return value == "rate" or (value == "log_rate" and any_real)
