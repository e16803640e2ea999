"""Posterior draws to several new groups at once: the total and the extremes of one count of each.

In each draw of the posterior every new group has its own rate and one count. The groups of a draw share its population,
so their counts vary together: a total varies by more than independent groups would.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from poolwise.inference.predictive import draws_of
from poolwise.inference.streams import named_generator
from poolwise.model import effects
from poolwise.model.count_model import Model
from poolwise.model.priors import PriorValues

SHARES = (0.05, 0.5, 0.95)  # ends of 90%, as of the count of one new group, and the median


@dataclass(frozen=True)
class NewGroups:
    """The prediction for several new groups.

    Attributes
    ----------
    number : of new groups
    table : median and 90% interval of the total, the largest and the smallest of their counts, one of each
    """

    number: int
    table: pd.DataFrame


def new_groups(
    model: Model,
    posterior: xr.Dataset,
    values: PriorValues,
    *,
    exposure: float,
    seed: int,
    number: int,
    x: Sequence[float] = (),
) -> NewGroups:
    """One count at `exposure` of each of `number` new groups, for every draw; `x` as of `predictive.new_group`."""
    rng, draws = named_generator(seed, "new_groups"), draws_of(model, posterior)
    families, params = dict(model.families), model.likelihood.at(model.likelihood.params_of(draws), exposure)
    size = posterior.sizes["chain"] * posterior.sizes["draw"]
    factor = effects.factors(model.effects, draws, np.array([x]))[:, 0] if any(x) else 1.0
    total, largest, smallest = np.zeros(size), np.zeros(size), np.full(size, np.inf)
    for _ in range(number):
        rate = model.pooling.new_rates(draws, families, values, rng)
        count = model.likelihood.sample(exposure * rate * factor, params, rng)
        total, largest, smallest = total + count, np.maximum(largest, count), np.minimum(smallest, count)
    ends = np.quantile([total, largest, smallest], SHARES, axis=1, method="inverted_cdf").T
    index = pd.Index(["total", "largest", "smallest"], name="quantity")
    columns = [f"quantile_{share:.0%}" for share in SHARES]
    return NewGroups(number, pd.DataFrame(ends, index=index, columns=columns))
