"""The wording of a report: question, answer, the model and its formulas, numbers and labels."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd
from markupsafe import Markup

from poolwise.checks.groups import CHECK as COMPARED
from poolwise.checks.groups import GroupsFound, named
from poolwise.checks.rate_ratios import CHECK as RATIOS
from poolwise.checks.summary import HIGH, LOW
from poolwise.counts import description
from poolwise.model.count_model import SITES, Model
from poolwise.text import compact, number, number_of, plural, short, words_of

if TYPE_CHECKING:
    from poolwise.checks.base import FitView
    from poolwise.counts.cells import Counts

MOST_RATIOS = 8  # rate ratios in the answer; a table has all


def question(counts: "Counts") -> str:
    """The question that the page answers."""
    events, groups = words_of(counts.columns.count), words_of(counts.columns.group)
    if counts.num_groups == 1:
        return f"At what rate do {events} occur in the one {groups}?"
    return f"Do {counts.num_groups} {plural(groups)} share one rate of {events}?"


def unit(counts: "Counts") -> str:
    """The unit of a rate."""
    exposure = counts.columns.exposure
    per = counts.columns.denominator(words_of(exposure)) if exposure else "row"
    return f"{words_of(counts.columns.count)} per {per}"


def at_exposure(exposure: float, counts: "Counts", at: Mapping[str, str] | None = None) -> str:
    """The exposure and the covariates of a predicted count, with a space before them; empty for a row without any."""
    covariates = description.with_covariates(counts.covariates, at or {})
    if counts.columns.exposure is None:
        return ("" if exposure == 1 else f" at exposure {compact(exposure)}") + covariates
    median = " (the median)" if exposure == description.median_exposure(counts) else ""
    size = compact(exposure * counts.columns.per)
    return f" at exposure {size} {short(words_of(counts.columns.exposure))}{median}{covariates}"


def answer(view: "FitView") -> str:
    """The answer to the question, with what the joint draws of the rates show of the groups.

    It begins with a warning if the draws are suspect or the model does not describe the counts.
    """
    whose = view.model.likelihood.rates_are
    return " ".join([*_warnings(view), _answer(view), *([whose] if whose else []), *_ratios(view)])


def _warnings(view: "FitView") -> list[str]:
    suspect = ["These draws are suspect: do not rely on the answer."] if view.verdict.reasons else []
    failed = ["The model does not describe these counts."] if view.model_check.reasons else []
    return suspect + failed


def _answer(view: "FitView") -> str:
    counts, summary, pooling = view.counts, view.summary, view.model.pooling
    rates, covariates = rates_of(summary), description.with_covariates(counts.covariates)
    where = covariates and f",{covariates}"
    if pooling.is_shared:
        return f"This model assumes one rate for all: {interval(rates.iloc[0])} {unit(counts)}{where}."
    if len(rates) == 1:
        return f"The rate is {interval(rates.iloc[0])} {unit(counts)}{where}."
    high, low = (rates.iloc[place] for place in (0, -1))
    names = [named(label_of(str(row.name)), words_of(counts.columns.group)) for row in (high, low)]
    sentences = [
        *_differences(view),
        f"The rates run from {interval(high)} in {names[0]} to {interval(low)} in {names[1]}, in "
        f"{unit(counts)}{where}.",
    ]
    if pooling.has_population:
        sentences.append(f"Between groups the rates have a standard deviation of {interval(summary.T['sigma'])}.")
    return " ".join(sentences)


def _ratios(view: "FitView") -> list[str]:
    """What covariates multiply the rates by: a sentence for each of the first."""
    found = view.results.get(RATIOS.name)
    lines = found.lines if found else ()
    told = [f"{line[0].upper()}{line[1:]}." for line in lines[:MOST_RATIOS]]
    more = len(lines) - len(told)
    return told + ([f"{number_of(more, 'more rate ratio')}: see tables/rate_ratios.csv."] if more else [])


def _differences(view: "FitView") -> list[str]:
    """Whether the groups differ and which, if `checks.groups` compared them."""
    found = groups_found(view)
    if found is None:
        return []
    groups = plural(words_of(view.counts.columns.group))
    if not view.model.pooling.has_population:
        first = f"This model assumes that the {groups} have independent rates, so it cannot show that they share one; "
        first += found.decided + (
            "; of equal rates about one in ten would be named by chance" if found.num_decided else ""
        )
    elif found.num_decided:
        first = f"The rates differ: {found.decided}"
    else:
        first = f"These data do not show that the {groups} differ, nor that they share one rate: {found.decided}"
    others = [each for each in found.lines if each != found.decided]
    return [f"{each[0].upper()}{each[1:]}." for each in (first, *others)]


def groups_found(view: "FitView") -> GroupsFound | None:
    """The groups compared, or None if `checks.groups` is off or there is one rate."""
    result = view.results.get(COMPARED.name)
    return result.value if result else None


def rates_of(summary: pd.DataFrame) -> pd.DataFrame:
    """The rows of the rates, the highest mean first."""
    names = summary.index.astype(str)
    rows = summary[(names == "lam") | names.str.startswith("lam.")]
    return rows.sort_values("mean", ascending=False, kind="stable")


def model_words(model: Model) -> str:
    """What the model assumes."""
    return f"{model.pooling.meaning} {model.likelihood.meaning} {model.likelihood.rates_are}".strip()


def model_maths(
    model: Model, priors: Mapping[str, Mapping[str, object]], *, has_exposure: bool
) -> list[tuple[Markup, str]]:
    """The formulas of a variant from the counts down to the priors, each with its meaning."""
    pooling = model.pooling
    size = "e<sub>i</sub> · " if has_exposure else ""
    mean = "its exposure times " if has_exposure else ""
    factor, times = (
        (" · exp(x<sub>i</sub> β)", ", times the rate ratios of its covariates x") if model.effects else ("", "")
    )
    rate = (f"r<sub>i</sub> = {size}{pooling.rate_symbol}{factor}", f"its rate: {mean}{pooling.whose_rate}{times}")
    lines = (*model.likelihood.formula, rate, *pooling.formula)
    formulas = [(Markup(formula), words) for formula, words in lines]  # contains no user input
    sites = SITES | {site.name: site for site in (*pooling.sites, *model.likelihood.sites)}  # symbols of this model
    for name, prior in priors.items():
        values = ", ".join(f"{key} {value}" for key, value in prior.items() if key != "name")
        law = Markup("{} ~ {}({})").format(Markup(sites[name].symbol), prior["name"], values)
        formulas.append((law, f"{name}: {sites[name].meaning}; prior"))
    return formulas


def interval(row: pd.Series) -> str:
    """A mean with its interval."""
    return f"{number(row['mean'])} ({number(row[LOW])} to {number(row[HIGH])})"


def label_of(name: str) -> str:
    """Label of a rate: its group as named in the data."""
    return short(name.removeprefix("lam.")) if name != "lam" else "all groups"
