"""A run to one self-contained page: question, answer, trust, pictures, tables, how to repeat it.

Nothing is fetched: pictures are embedded, the style is inline and there is no script, so that the page opens
from a file, in an artifact viewer and on paper alike. All that came from the data or the config is escaped.
"""

import math
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

if TYPE_CHECKING:
    from poolwise.checks import Loo, Verdict
    from poolwise.data import Counts
    from poolwise.predict import NewGroup

__all__ = ["Limits", "render"]

MAX_ROWS = 20  # rows of a table; beyond it the extremes are shown
MEANING = {
    "mu": "mean of the groups' rates",
    "sigma": "standard deviation between the groups' rates",
    "delta": "overdispersion (no unit; 0 is Poisson noise)",
}
COLUMNS = {  # of the summary, as the page calls them
    "mean": "mean",
    "sd": "sd",
    "median": "median",
    "hdi_3%": "94% from",
    "hdi_97%": "to",
    "mcse_mean": "error of the mean",
    "ess_bulk": "ESS, bulk",
    "ess_tail": "ESS, tail",
    "r_hat": "R-hat",
}
PROBABILITIES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


@dataclass(frozen=True)
class Limits:
    """The limits of the gate: the largest R-hat, the smallest ESS and E-BFMI that pass."""

    r_hat: float
    ess: float
    bfmi: float


def render(
    *,
    counts: "Counts",
    pooling: str,
    likelihood: str,
    priors: Mapping[str, Mapping[str, object]],
    summary: pd.DataFrame,
    loo: "Loo",
    verdict: "Verdict",
    limits: Limits,
    new_group: "NewGroup",
    pictures: Mapping[str, tuple[bytes, str]],
    command: str,
    config: str,
    stack: Mapping[str, str],
    commit: str,
) -> str:
    """Render one run as an HTML page.

    Parameters
    ----------
    pooling, likelihood : keys of `model.POOLINGS` and `model.LIKELIHOODS`
    priors : site -> family under `name` and its parameters, as in the config
    summary : see `checks.summarise`
    pictures : name -> bytes of a PNG file and its caption, in the order of the page
    command : what runs this again, without a prompt
    config : the resolved config as text
    stack : name -> version of what the result depends on
    commit : of the source, with a word if it was changed; may be empty
    """
    environment = Environment(
        loader=PackageLoader("poolwise"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "short": _short}
    images = [
        {"name": name, "source": f"data:image/png;base64,{b64encode(image).decode()}", "caption": caption}
        for name, (image, caption) in pictures.items()
    ]
    rates = summary.loc[[name for name in summary.index if name == "lam" or name.startswith("lam.")]]
    return environment.get_template("report.html").render(
        title=_question(counts),
        counts=counts,
        unit=_unit(counts),
        pooling=pooling,
        answer=_answer(rates, summary, counts, pooling),
        answer_rows=_answer_rows(rates, summary),
        num_rates=len(rates),
        new_group=new_group,
        at_exposure=f" at exposure {new_group.exposure:g}" if counts.columns.exposure else "",
        new_range=[_quantile(new_group.table, p) for p in (0.05, 0.95)],
        new_rows=[(p, _quantile(new_group.table, p)) for p in PROBABILITIES],
        loo=loo,
        verdict=verdict,
        gate=_gate(summary, verdict, loo, limits),
        model_words=_model_words(pooling, likelihood),
        model_maths=_model_maths(pooling, likelihood, priors),
        images=images,
        columns=COLUMNS,
        summary_rows=_extremes(summary, rates).to_dict("index"),
        num_parameters=len(summary),
        command=command,
        config=config,
        stack=stack,
        commit=commit,
    )


def _question(counts: "Counts") -> str:
    events, groups = _words(counts.columns.count), _words(counts.columns.group)
    if counts.num_groups == 1:
        return f"At what rate do {events} occur in the one {groups}?"
    return f"Do {counts.num_groups} {_plural(groups)} share one rate of {events}?"


def _unit(counts: "Counts") -> str:
    """Say what a rate is in."""
    per = f"unit of {_words(counts.columns.exposure)}" if counts.columns.exposure else "row"
    return f"{_words(counts.columns.count)} per {per}"


def _answer(rates: pd.DataFrame, summary: pd.DataFrame, counts: "Counts", pooling: str) -> str:
    if pooling == "pooled":
        lam = rates.iloc[0]
        return f"This model takes for granted that they do: one rate of {_interval(lam)} {_unit(counts)}."
    low, high = (rates.iloc[int(place)] for place in (rates["mean"].argmin(), rates["mean"].argmax()))
    if len(rates) == 1:
        return f"The rate is {_interval(low)} {_unit(counts)}."
    names = [f"{_words(counts.columns.group)} {_label(str(row.name))}" for row in (low, high)]
    apart = "do not overlap" if low["hdi_97%"] < high["hdi_3%"] else "overlap"
    text = (
        f"The rates run from {_interval(low)} in {names[0]} to {_interval(high)} in {names[1]}, in "
        f"{_unit(counts)}; the intervals of these two {apart}."
    )
    if pooling == "hierarchical":
        text += f" Between groups the rates have a standard deviation of {_interval(summary.T['sigma'])}."
    return text


def _answer_rows(rates: pd.DataFrame, summary: pd.DataFrame) -> list[tuple[str, pd.Series]]:
    """Rows of the small table: the rates, and what describes the groups as a whole."""
    shown = _extremes(rates, rates)
    rows = [(_label(str(name)), shown.loc[name]) for name in shown.index]
    return rows + [(MEANING[name], summary.loc[name]) for name in ("mu", "sigma", "delta") if name in summary.index]


def _extremes(table: pd.DataFrame, rates: pd.DataFrame) -> pd.DataFrame:
    """Leave out the middle of the rates, by mean, where there are more than MAX_ROWS."""
    if len(rates) <= MAX_ROWS:
        return table
    ordered = rates["mean"].sort_values(kind="stable").index
    kept = [*ordered[: MAX_ROWS // 2], *ordered[-MAX_ROWS // 2 :]]
    others = [name for name in table.index if name not in rates.index]
    return table.loc[[*others, *kept]]


def _gate(summary: pd.DataFrame, verdict: "Verdict", loo: "Loo", limits: Limits) -> list[tuple[str, str, str, bool]]:
    """Quantity, value, limit and whether it passed; a value that is not a number has not."""
    r_hat, bulk, tail = (summary[name] for name in ("r_hat", "ess_bulk", "ess_tail"))
    least = f"at least {limits.ess:,.0f}"
    return [
        (
            "R-hat, the largest: do the chains agree?",
            f"{r_hat.max(skipna=False):.4f}",
            f"at most {limits.r_hat}",
            bool((r_hat <= limits.r_hat).all()),
        ),
        (
            "bulk ESS, the smallest: independent draws behind a mean",
            f"{bulk.min(skipna=False):,.0f}",
            least,
            bool((bulk >= limits.ess).all()),
        ),
        (
            "tail ESS, the smallest: independent draws behind an interval",
            f"{tail.min(skipna=False):,.0f}",
            least,
            bool((tail >= limits.ess).all()),
        ),
        (
            "divergent transitions: places the sampler could not follow",
            f"{verdict.divergences:,}",
            "0",
            verdict.divergences == 0,
        ),
        (
            "E-BFMI, the smallest: does the sampler reach the tails?",
            f"{verdict.bfmi_min:.2f}",
            f"at least {limits.bfmi}",
            verdict.bfmi_min >= limits.bfmi,
        ),
        (
            "Pareto k, the largest: does one row decide the result?",
            f"{verdict.pareto_k_max:.2f}",
            f"at most {loo.k_threshold:.2f}",
            loo.bad_rows == 0,
        ),
        (
            "elpd_loo and its Monte Carlo error",
            f"{loo.elpd:.2f}, {loo.mcse:.2g}",
            "finite",
            math.isfinite(loo.elpd) and math.isfinite(loo.mcse),
        ),
    ]


def _model_words(pooling: str, likelihood: str) -> str:
    rates = {
        "pooled": "All groups share one rate.",
        "unpooled": "Every group has a rate of its own and learns nothing from the others.",
        "hierarchical": (
            "Every group has a rate of its own; the rates come from one distribution, whose mean and spread"
            " are estimated too, so that groups with few data lean on the others."
        ),
    }
    noise = {
        "poisson": "Given its rate, a count varies as a Poisson count does: variance equal to the mean.",
        "negative_binomial": (
            "Given its rate r, a count varies more than a Poisson count: its variance is r + delta² r², "
            "with one delta for all groups."
        ),
    }
    return f"{rates[pooling]} {noise[likelihood]}"


def _model_maths(pooling: str, likelihood: str, priors: Mapping[str, Mapping[str, object]]) -> list[str]:
    lam = "lam" if pooling == "pooled" else "lam[g]"
    noise = {
        "poisson": "y[i] ~ Poisson(r[i])",
        "negative_binomial": "y[i] ~ NegativeBinomial(mean r[i], concentration phi),  phi = 1/delta²",
    }
    lines = [noise[likelihood], f"r[i] = exposure[i] * {lam.replace('[g]', '[group of i]')}"]
    if pooling == "hierarchical":
        lines += ["lam[g] ~ Gamma(shape alpha, rate beta)", "alpha = mu²/sigma²,  beta = mu/sigma²"]
    for site, prior in priors.items():
        values = ", ".join(f"{key} {value}" for key, value in prior.items() if key != "name")
        lines.append(f"{lam if site == 'lam' else site} ~ {prior['name']}({values})")
    return lines


def _quantile(table: pd.DataFrame, probability: float) -> int:
    """Smallest count that a new group's count does not exceed with this probability."""
    place = int(table["cumulative"].searchsorted(probability))
    return int(table["count"].iloc[min(place, len(table) - 1)])


def _interval(row: pd.Series) -> str:
    return f"{_number(row['mean'])} ({_number(row['hdi_3%'])} to {_number(row['hdi_97%'])})"


def _label(name: str) -> str:
    """Name of a rate as the data call its group."""
    return _short(name.removeprefix("lam.")) if name != "lam" else "all groups"


def _short(text: str, length: int = 60) -> str:
    """Leave out the middle of a long text."""
    return text if len(text) <= length else f"{text[: length // 2]}…{text[1 - length // 2 :]}"


def _words(column: str) -> str:
    return column.replace("_", " ").strip() or column


def _plural(noun: str) -> str:
    """English plural of a column's name, good enough for a title."""
    if noun.endswith(("s", "x", "z", "ch", "sh")):
        return noun if noun.endswith("s") and not noun.endswith("ss") else f"{noun}es"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}s"


def _number(value: float, digits: int = 3) -> str:
    """Write a number with so many significant digits, without an exponent where that is readable."""
    if math.isnan(value):
        return "n/a"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if value and not 1e-3 <= abs(value) < 1e9:
        return f"{value:.{digits}g}"
    whole = math.floor(math.log10(abs(value))) + 1 if value else 1
    return f"{value:,.{max(0, digits - whole)}f}"
