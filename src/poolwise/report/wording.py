"""The wording of a report: question, answer, the model and its formulas, numbers and labels."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd
from markupsafe import Markup

from poolwise.checks.summary import HIGH, LOW
from poolwise.model.count_model import Model
from poolwise.model.poolings.base import Pooling
from poolwise.text import number, plural, short, words_of

if TYPE_CHECKING:
    from poolwise.counts.cells import Counts


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


def answer(rates: pd.DataFrame, summary: pd.DataFrame, counts: "Counts", pooling: Pooling) -> str:
    """The answer in one or two sentences, with intervals."""
    if pooling.is_shared:
        lam = rates.iloc[0]
        return f"This model assumes that they do: one rate of {interval(lam)} {unit(counts)}."
    low, high = (rates.iloc[int(place)] for place in (rates["mean"].argmin(), rates["mean"].argmax()))
    if len(rates) == 1:
        return f"The rate is {interval(low)} {unit(counts)}."
    names = [f"{words_of(counts.columns.group)} {label_of(str(row.name))}" for row in (low, high)]
    apart = "do not overlap" if low[HIGH] < high[LOW] else "overlap"
    text = (
        f"The rates run from {interval(low)} in {names[0]} to {interval(high)} in {names[1]}, in "
        f"{unit(counts)}; the intervals of these two {apart}."
    )
    if pooling.has_population:
        text += f" Between groups the rates have a standard deviation of {interval(summary.T['sigma'])}."
    return text


def model_words(model: Model) -> str:
    """What the model assumes."""
    return f"{model.pooling.meaning} {model.likelihood.meaning}"


def model_maths(
    model: Model, priors: Mapping[str, Mapping[str, object]], *, has_exposure: bool
) -> list[tuple[Markup, str]]:
    """The formulas of a variant from the counts down to the priors, each with its meaning."""
    pooling = model.pooling
    size = "e<sub>i</sub> · " if has_exposure else ""
    mean = "its exposure times " if has_exposure else ""
    rate = (f"r<sub>i</sub> = {size}{pooling.rate_symbol}", f"its rate: {mean}{pooling.whose_rate}")
    lines = (*model.likelihood.formula, rate, *pooling.formula)
    formulas = [(Markup(formula), words) for formula, words in lines]  # contains no user input
    sites = {site.name: site for site in (*pooling.sites, *model.likelihood.sites)}
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
