"""A judged fit to the model check: whether the fitted model could have produced these counts.

Conditions on the posterior predictive test statistics, on LOO-PIT and the coverage of predictive intervals, and on
p_loo. Their levels sum to 1% (Bonferroni), so a true model fails at most one time in a hundred:

    4 test statistics at 0.2%, LOO-PIT and coverage at 0.05% each, p_loo at 0.1%

A failure names the choice of likelihood or pooling that describes what the model misses, if there is one.
"""

from collections.abc import Iterator

import pandas as pd
from scipy.stats import chi2

from poolwise.checks.base import Check, FitView, Result, Settings
from poolwise.checks.conditions import Condition
from poolwise.checks.predictive_statistics import LARGEST, OVERALL, WITHIN, ZEROS, written
from poolwise.checks.summary import INTERVAL
from poolwise.model.count_model import WITHOUT_MEAN, Model
from poolwise.model.likelihoods import LIKELIHOODS
from poolwise.model.poolings import POOLINGS
from poolwise.model.sites import Feature
from poolwise.text import number, share

STATISTIC_LEVEL, ROWS_LEVEL, P_LOO_LEVEL = 0.002, 0.0005, 0.001
FAR_ABOVE = 2.0  # p_loo over the number of parameters, at least
NOMINAL = (0.5, 0.8, 0.9, 0.95)  # of the intervals that a sentence may name


def run(view: FitView, _: Settings) -> Result:
    """All conditions of the model check."""
    return Result(model_conditions=(*_of_statistics(view), *_of_rows(view), _of_p_loo(view)))


CHECK = Check("model_check", "model_check", run)


def _of_statistics(view: FitView) -> Iterator[Condition]:
    """One condition for each test statistic."""
    table, _ = view.predictive_statistics
    for name, row in table.iterrows():
        is_above = row["at_least"] < 0.5
        observed, low, high = (written(str(name), row[column]) for column in ("observed", "3%", "97%"))
        yield Condition.of(
            name=f"{name}: are simulated tables like the data?",
            value=f"{observed} (p {_p(row['p_tail'])})",
            limit=f"p above {STATISTIC_LEVEL:g}; {INTERVAL:.0%} of tables have {low} to {high}",
            passed=bool(row["p_tail"] > STATISTIC_LEVEL),
            otherwise=f"{_found(str(name), row)} ({INTERVAL:.0%} of simulated tables: {low} to {high})",
            remedy=_remedy_of(view, str(name), is_above=is_above),
            shown_in="statistics",
        )


def _remedy_of(view: FitView, name: str, *, is_above: bool) -> tuple[str, ...]:
    """The choices that describe what a statistic shows that is above, or below, those of tables of this model."""
    groups_may_differ = view.counts.num_groups > 1 and Feature.DIFFERENT_GROUPS not in view.model.pooling.describes
    above = {
        OVERALL: Feature.DIFFERENT_GROUPS if groups_may_differ else Feature.OVERDISPERSION,
        WITHIN: Feature.OVERDISPERSION,
        ZEROS: Feature.EXCESS_ZEROS,
        LARGEST: Feature.OVERDISPERSION,
    }
    below = {OVERALL: Feature.UNDERDISPERSION, WITHIN: Feature.UNDERDISPERSION}
    missing = (above if is_above else below).get(name)
    return remedy(view.model, missing) if missing else ()


def _found(name: str, row: pd.Series) -> str:
    """What the data show against the model, for a statistic that fails."""
    observed, median = row["observed"], row["median"]
    where = {OVERALL: "", WITHIN: "within groups, "}
    if name in where:
        return f"{where[name]}counts vary {number(observed / median, 2)} times as much as the model expects"
    if name == ZEROS:
        return f"{observed:,.0f} rows have a zero where the model expects {median:,.0f}"
    return f"the largest count is {observed:,.0f} where the model expects {median:,.0f}"


def _of_rows(view: FitView) -> Iterator[Condition]:
    """LOO-PIT, and the coverage of the predictive intervals of left-out rows."""
    pit = view.loo_pit
    p = pit.ecdf[1]
    yield Condition.of(
        name="LOO-PIT: are rows where the others predict them?",
        value=f"p {_p(p)}",
        limit=f"p at least {ROWS_LEVEL:g}",
        passed=p >= ROWS_LEVEL,
        otherwise=f"LOO-PIT: the counts {pit.departures}",
        shown_in="loo_pit",
    )
    table, p = pit.coverage
    covered = {level: float(table["covered"].loc[level]) for level in NOMINAL}
    level = max(NOMINAL, key=lambda level: abs(covered[level] - level))
    is_wide = covered[level] > level
    yield Condition.of(
        name="coverage of the predictive intervals of left-out rows",
        value=f"p {_p(p)}",
        limit=f"p at least {ROWS_LEVEL:g}",
        passed=p >= ROWS_LEVEL,
        otherwise=f"the {level:.0%} intervals of left-out rows contain {share(covered[level])} of them",
        remedy=remedy(view.model, Feature.UNDERDISPERSION if is_wide else Feature.OVERDISPERSION),
        shown_in="calibration",
    )


def _of_p_loo(view: FitView) -> Condition:
    """The effective number of parameters, which is near the variance over the mean times the true number.

    Vehtari, Gelman and Gabry (2017), doi:10.1007/s11222-016-9696-4: p_loo above the number of parameters shows a model
    that does not describe the data. For few rows it is about as uncertain as X^2 with their degrees of freedom.
    """
    num_parameters = sum(name not in WITHOUT_MEAN for name in view.summary.index)
    freedom = max(1, view.counts.num_rows - num_parameters)
    limit = num_parameters * max(FAR_ABOVE, chi2.isf(P_LOO_LEVEL, freedom) / freedom)
    return Condition.of(
        name="p_loo, the effective number of parameters",
        value=number(view.loo.p_loo),
        limit=f"at most {number(limit)} for {num_parameters} parameters",
        passed=bool(view.loo.p_loo <= limit),
        otherwise=f"p_loo is {number(view.loo.p_loo)}, far above the {num_parameters} parameters of the model",
        remedy=remedy(view.model, Feature.OVERDISPERSION),
    )


def remedy(model: Model, missing: Feature) -> tuple[str, ...]:
    """The choices that describe a feature, unless the model describes it.

    They also describe what the present choice describes, and no more than they must.
    """
    if missing in (*model.likelihood.describes, *model.pooling.describes):
        return ()
    found: list[str] = []
    plug_ins = (("likelihood", model.likelihood, LIKELIHOODS), ("pooling", model.pooling, POOLINGS))
    for key, present, known in plug_ins:
        wanted = {missing, *present.describes}
        able = {each.name: len(each.describes) for each in known.values() if wanted <= {*each.describes}}
        found += [f"{key}={name}" for name, number in able.items() if number == min(able.values())]
    return tuple(found)


def _p(value: float) -> str:
    return "under 0.0001" if value < 1e-4 else number(value, 2)
