"""Zeros: the rows without an event in the data, in tables of the fitted model, and without a share of its own for them.

A likelihood with a site for zeros (`zeros_site`: zero inflation, a hurdle) is compared with its base at the same rates
and parameters. What it adds is the difference of the two expected numbers.

Zero inflation and overdispersion both make zeros, so few counts tell the one from the other poorly, and the prior of
the site then decides. The rule: the prior dominates if the posterior sd is more than sqrt(1/2) of the prior sd. For
normal distributions, whose precisions add, the prior then has more precision than the data.

Everything is by stratum (the rows of one group and exposure) and at some of the draws: many rows cost nothing.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from poolwise.checks.base import Check, FitView, Result, Settings
from poolwise.checks.model_check import remedy
from poolwise.checks.predictive_statistics import ZEROS
from poolwise.checks.summary import INTERVAL
from poolwise.inference.predictive import by_stratum
from poolwise.model.likelihoods.base import Likelihood
from poolwise.model.priors import law
from poolwise.model.sites import Feature
from poolwise.text import number_of

DOMINATES = math.sqrt(0.5)  # the posterior sd of the site by its prior sd, from which the prior dominates


@dataclass(frozen=True)
class Zeros:
    """Numbers of rows with a zero.

    Attributes
    ----------
    observed : in the data
    expected : posterior mean under the model
    low, high : of 94% of the simulated tables
    without : expected by the base of the likelihood alone; None if it has no site for zeros
    sd_ratio : the posterior sd of that site by its prior sd; None without one
    """

    observed: int
    expected: float
    low: float
    high: float
    without: float | None = None
    sd_ratio: float | None = None

    @property
    def is_dominated(self) -> bool:
        """Whether the prior of the site says more of it than the data."""
        return self.sd_ratio is not None and self.sd_ratio > DOMINATES


def run(view: FitView, _: Settings) -> Result:
    """What explains the zeros."""
    found = zeros_of(view)
    metrics = {"zeros/observed": float(found.observed), "zeros/expected": found.expected}
    more = {"zeros/expected_without": found.without, "zeros/sd_ratio": found.sd_ratio}
    metrics |= {name: value for name, value in more.items() if value is not None}
    return Result(metrics=metrics, lines=lines(found, view), value=found)


CHECK = Check("zeros", "zeros", run)


def zeros_of(view: FitView) -> Zeros:
    """The numbers of a fit."""
    likelihood, counts = view.model.likelihood, view.counts
    simulated, _ = view.predictive_statistics
    strata = by_stratum(view.model, view.posterior, view.cells)

    def expected(law_of_counts: Likelihood) -> float:
        share = law_of_counts.below(np.ones(()), strata.rate, strata.params)
        return float(np.mean(np.broadcast_to(share, strata.rate.shape) @ strata.rows))

    low, high = (float(simulated[column].to_numpy()[simulated.index.get_loc(ZEROS)]) for column in ("3%", "97%"))
    found = Zeros(
        observed=int(counts.cell_multiplicity[counts.cell_count == 0].sum()),
        expected=expected(likelihood),
        low=low,
        high=high,
    )
    site = likelihood.zeros_site
    if site is None:
        return found
    [base] = likelihood.made_of
    prior = law(dict(view.model.families)[site], view.prior_values[site])
    ratio = float(view.posterior[site].std() / prior.std())
    return replace(found, without=expected(base), sd_ratio=ratio)


def lines(found: Zeros, view: FitView) -> tuple[str, ...]:
    """What explains the zeros, and whether the data tell it; empty if there are none to explain."""
    if found.observed == 0 and found.high < 1 and found.without is None:
        return ()
    likelihood = view.model.likelihood
    between = f"{_number(found.low)} to {_number(found.high)}"
    rows = f"{number_of(found.observed, 'row')} {'has' if found.observed == 1 else 'have'}"
    head = f"{rows} a zero where the model expects {_number(found.expected)} ({between})"
    if not found.low <= found.observed <= found.high:
        side, more = ("more", _others(view)) if found.observed > found.high else ("fewer", "")
        head += f": {side} than {(1 + INTERVAL) / 2:.0%} of its tables have{more}"
    elif found.without is None:
        head += ", so neither zero inflation nor a hurdle is needed"
    if found.without is None:
        return (head,)
    added = found.expected - found.without
    [base] = likelihood.made_of
    head += (
        f"; at the same rates the {base.name.replace('_', ' ')} alone expects {_number(found.without)}, so "
        f"{likelihood.zeros_site} {'adds' if added >= 0 else 'takes off'} {_number(abs(added))}"
    )
    return (head, *_dominated(found, likelihood, base))


def _dominated(found: Zeros, likelihood: Likelihood, base: Likelihood) -> tuple[str, ...]:
    """That the prior decides, if it does."""
    if not found.is_dominated:
        return ()
    untold = (
        f"do not tell the zeros of {likelihood.zeros_site} from those of overdispersion"
        if Feature.OVERDISPERSION in base.describes
        else "hardly tell how many zeros it makes"
    )
    return (
        f"the prior dominates {likelihood.zeros_site}: its posterior sd is {found.sd_ratio:.0%} of its prior sd (above "
        f"{DOMINATES:.0%} the prior says more than the data), so these counts {untold}",
    )


def _others(view: FitView) -> str:
    """The choices that expect more zeros."""
    features = (Feature.EXCESS_ZEROS, Feature.OVERDISPERSION)
    choices = dict.fromkeys(each for feature in features for each in remedy(view.model, feature))
    return f"; compare with {' or '.join(choices)}" if choices else ""


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == round(value) else f"{value:.1f}"
