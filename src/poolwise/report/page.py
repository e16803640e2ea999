"""A run to one self-contained page: question, answer, trust, pictures, tables, how to repeat it.

The reader has never seen the project: every part says what it is for, and every picture what it shows and how to
read it.

Nothing is fetched: pictures are embedded, the style is inline and there is no script. The page therefore opens from a
file, in an artifact viewer and on paper. Everything from the data or the config is escaped.
"""

import functools
import math
from base64 import b64encode
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from poolwise.checks.group_contrasts import DECIDED, RANK_HIGH, RANK_LOW
from poolwise.checks.groups import probability
from poolwise.checks.integrated_loo import INTEGRATE_ABOVE_K
from poolwise.checks.rate_ratios import CHECK as RATIOS
from poolwise.checks.rate_ratios import in_words
from poolwise.checks.summary import HIGH, INTERVAL, LOW
from poolwise.counts import description, look_alikes
from poolwise.figures import names as figures_names
from poolwise.figures.bins import count_quantile
from poolwise.report import note
from poolwise.report.wording import (
    answer,
    at_exposure,
    groups_found,
    label_of,
    model_maths,
    model_words,
    question,
    rates_of,
    unit,
)
from poolwise.text import cell, number, number_of, short

if TYPE_CHECKING:
    from poolwise.checks.base import FitView
    from poolwise.checks.exact_agreement import Agreement
    from poolwise.checks.leave_group_out import GroupsOut
    from poolwise.figures.base import Picture

__all__ = ["RunFacts", "render"]

MAX_ROWS = 20  # rows of a table; a longer one shows its extremes
COLUMNS = {  # of the summary -> heading on the page
    "mean": "mean",
    "sd": "sd",
    "median": "median",
    LOW: f"{INTERVAL:.0%} HDI from",
    HIGH: "to",
    "mcse_mean": "error of the mean",
    "ess_bulk": "ESS, bulk",
    "ess_tail": "ESS, tail",
    "r_hat": "R-hat",
}
SECTIONS = figures_names.SECTIONS | {"more": ("More", "", ())}  # of the pictures; the last holds all others
NAMED_GROUP = ("A group of the data", "The prediction for one more count of it.")  # section "new" of a named group
TABLES: dict[str, tuple[str, str, dict[str, str]]] = {  # name: caption, heading of the rows, columns and their headings
    "counts": (
        "All counts",
        "",
        {
            **{"rows": "rows", "groups": "groups", "mean": "mean", "sd": "sd", "min": "min", "q25": "quartile"},
            **{"median": "median", "q75": "quartile", "max": "max", "zeros": "zeros", "var": "variance"},
            "var_over_mean": "variance / mean",
        },
    ),
    "groups": (
        "The counts of each group",
        "group",
        {
            **{"rows": "rows", "min": "min", "max": "max", "median": "median", "mean": "mean", "var": "variance"},
            **{"var_over_mean": "variance / mean", "exposure": "exposure", "rate": "rate"},
        },
    ),
    "sensitivity": (
        "Power-scaling: how far the posterior moves when prior or likelihood weigh a little more or less",
        "parameter",
        {"prior": "prior", "likelihood": "likelihood", "diagnosis": "diagnosis"},
    ),
}
RANKED = {  # of tables/ranking.csv -> heading on the page
    "rank": "rank, 90%",
    "p_highest": "P(highest)",
    "p_lowest": "P(lowest)",
    "p_above_overall": "P(above the overall rate)",
}
PROBABILITIES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


# checks with their own section
SHOWN_APART = ("exact_agreement", "leave_group_out", "power_scaling", "groups", RATIOS.name)


@dataclass(frozen=True)
class RunFacts:
    """What produced a run.

    Attributes
    ----------
    command : repeats it; without a prompt
    config : the resolved config as text
    stack : name -> version of everything the result depends on
    commit : of the source, marked if the source was changed; may be empty
    """

    command: str
    config: str
    stack: Mapping[str, str]
    commit: str


def render(
    view: "FitView",
    *,
    pictures: Mapping[str, tuple[bytes, "Picture"]],
    run: RunFacts,
    tables: Mapping[str, pd.DataFrame] | None = None,
) -> str:
    """Render one run as an HTML page.

    Parameters
    ----------
    pictures : name -> bytes of a PNG file and the picture; each in its section, others at the end
    tables : name -> table, as the run writes them; of these counts, groups and those of checks are shown
    """
    tables = {**(tables or {}), **view.tables}
    return template("report.html").render(
        _answer(view)
        | _trust(view)
        | _model(view)
        | _new_group(view)
        | {
            "sections": _sections(pictures, is_named=view.new_group.label is not None),
            "drawn": set(pictures),
            "look_alikes": look_alikes.remarks(view.counts),
            "data_words": description.hint(view.counts),
            "tables": [_table(name, tables[name]) for name in TABLES if name in tables],
            "command": run.command,
            "config": run.config,
            "stack": run.stack,
            "commit": run.commit,
        }
    )


@functools.cache  # a sweep renders a page a job
def template(name: str) -> Template:
    """A page of `templates`: nothing is fetched, and every value is escaped."""
    environment = Environment(
        loader=PackageLoader("poolwise.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "short": short, "cell": cell}
    return environment.get_template(name)


def _answer(view: "FitView") -> dict[str, object]:
    """Question and answer, and the parameters."""
    counts, summary = view.counts, view.summary
    rates = rates_of(summary)
    return {
        "title": question(counts),
        "counts": counts,
        "unit": unit(counts),
        "interval": f"{INTERVAL:.0%}",
        "low": LOW,
        "high": HIGH,
        "answer": answer(view),
        "answer_rows": _answer_rows(rates, view),
        "ratio_rows": _ratio_rows(view),
        "ranked": RANKED.values() if groups_found(view) else (),
        "decided": f"{DECIDED:.0%}",
        "num_rates": len(rates),
        "columns": COLUMNS,
        "summary_rows": _extremes(summary, rates).to_dict("index"),
        "num_parameters": len(summary),
    }


def _trust(view: "FitView") -> dict[str, object]:
    """Verdict and model check with their conditions, and what each check found."""
    found = view.results
    exact, left_out, priors, *_ = (found.get(name) for name in SHOWN_APART)
    others = [result for name, result in found.items() if name not in SHOWN_APART]
    no_exact = exact.lines if exact and exact.value is None else ()
    return {
        "loo": view.loo,
        "verdict": view.verdict,
        "model_check": view.model_check,
        "replaced": _integrated(view),
        "exact": _exact(exact.value) if exact and exact.value is not None else None,
        "left_out": _left_out(left_out.value) if left_out else None,
        "prior_warnings": view.prior_warnings,
        "sensitivity_words": priors.lines if priors else (),
        "check_lines": [*no_exact, *(line for result in others for line in result.lines)],
        "check_tables": [_plain(name, table) for result in others for name, table in result.tables.items()],
        "switched_off": ", ".join(f"checks.{key}=false" for key in view.switched_off),
    }


def _model(view: "FitView") -> dict[str, object]:
    """The model in words and in formulas."""
    priors = {
        site: {"name": family, **{key: f"{float(value):g}" for key, value in view.prior_values[site].items()}}
        for site, family in view.model.families
    }
    has_exposure = view.counts.columns.exposure is not None
    return {
        "pooling": view.model.pooling,
        "model_words": model_words(view.model),
        "model_maths": model_maths(view.model, priors, has_exposure=has_exposure),
    }


def _new_group(view: "FitView") -> dict[str, object]:
    """The prediction for a new group, or for a named one."""
    new = view.new_group
    return {
        "new_group": new,
        "at_exposure": at_exposure(new.exposure, view.counts, view.at),
        "new_groups": note.new_groups(view),
        "above": new.above,
        "group_label": new.label,
        "new_range": [count_quantile(new.table, p) for p in (0.05, 0.95)],
        "new_rows": [(p, count_quantile(new.table, p)) for p in PROBABILITIES],
    }


def _answer_rows(rates: pd.DataFrame, view: "FitView") -> list[tuple[str, pd.Series, tuple[str, ...]]]:
    """Rows of the small table: the rates with their ranks, and the parameters of the population of groups."""
    shown = _extremes(rates, rates)
    ranks = _ranks(view, [str(name).removeprefix("lam.") for name in shown.index])
    rows = [(label_of(str(name)), shown.loc[name], ranks.get(str(name), ())) for name in shown.index]
    sites = (*view.model.pooling.sites, *view.model.likelihood.sites)
    return rows + [(site.meaning, view.summary.loc[site.name], ()) for site in sites if site.name != "lam"]


def _ratio_rows(view: "FitView") -> list[tuple[str, ...]]:
    """Rows of the table of rate ratios: words, ratio, interval, and the probability that it is above 1."""
    found = view.results.get(RATIOS.name)
    table = found.value if found else None
    return [] if table is None else [(words, *ratio, above) for words, ratio, above in in_words(table, view.counts)]


def _ranks(view: "FitView", labels: list[str]) -> dict[str, tuple[str, ...]]:
    """The cells `RANKED` of the rates of these groups; empty if the groups are not compared."""
    found = groups_found(view)
    if found is None:
        return {}
    table = found.ranking.loc[labels]
    ends = zip(table[RANK_LOW], table[RANK_HIGH], strict=True)
    cells = zip(ends, *(map(probability, table[column]) for column in list(RANKED)[1:]), strict=True)
    return {
        f"lam.{label}": (f"{low:.0f} to {high:.0f}", *others)
        for label, ((low, high), *others) in zip(table.index, cells, strict=True)
    }


def _extremes(table: pd.DataFrame, rates: pd.DataFrame) -> pd.DataFrame:
    """Drop the middle of the sorted rates, if there are more than MAX_ROWS."""
    if len(rates) <= MAX_ROWS:
        return table
    kept = [*rates.index[: MAX_ROWS // 2], *rates.index[-MAX_ROWS // 2 :]]
    others = table.index.difference(rates.index, sort=False)
    return table.loc[[*others, *kept]]


def _integrated(view: "FitView") -> str:
    """Why the leave-one-out values are not from PSIS; empty if they are."""
    loo = view.loo
    if loo.psis is None:
        return ""
    rows = number_of(loo.refitted_rows, "row")
    why = (
        "Pareto-smoothed importance sampling needs the rates of all groups at every draw"
        if math.isnan(loo.k_max_psis)
        else f"the largest Pareto k of Pareto-smoothed importance sampling is {loo.k_max_psis:.2f}: above "
        f"{INTEGRATE_ABOVE_K:g} its sum over rows may be biased"
    )
    refits = f" These weights are uneven for {rows}, whose values are from refits." if loo.refitted_rows else ""
    return (
        f"The leave-one-out values of all {view.counts.num_rows:,} rows are computed by integrated importance "
        f"sampling, because {why}.{refits} The conditions judge the new values."
    )


def _exact(found: "Agreement") -> dict[str, object]:
    """The exact answer and the fit: the rows, the worst of many, and a summary sentence."""
    table = found.table
    z = table["z"].abs().dropna()
    words = ""
    if len(z):
        agrees = "agrees with it" if found.agrees else "does not agree with it"
        words = (
            f"The fit {agrees}: the largest of {len(z)} z-scores is {z.max():.2f} ({short(str(z.idxmax()))}), "
            f"and Monte Carlo error explains up to {found.limit:.1f}."
        )
    kept = table
    if len(table) > MAX_ROWS:
        worst = set(z.sort_values(ascending=False, kind="stable").index[:MAX_ROWS])
        kept = table[[name in worst or math.isnan(score) for name, score in table["z"].items()]]
    return {"words": words, "rows": list(_records(kept)), "of": len(table)}


def _left_out(found: "GroupsOut") -> dict[str, object]:
    """Groups predicted from the others: the rows, the least expected of many, and the total with its errors."""
    table = pd.DataFrame({"elpd": found.elpd, "mcse": found.mcse}, index=pd.Index(found.labels))
    size = len(table)
    kept = table if size <= MAX_ROWS else table.sort_values("elpd", kind="stable").head(MAX_ROWS)
    return {
        "rows": [(short(label), row) for label, row in _records(kept)],
        "of": size,
        "total": found.total,
        "mcse": found.total_mcse,
        "se": found.se,
        "doubtful": [short(label) for label in found.suspect],
    }


def _plain(name: str, table: pd.DataFrame) -> dict[str, object]:
    """The first rows of the table of a check without its own section."""
    left_out = f"the first {MAX_ROWS} of {len(table)} rows" if len(table) > MAX_ROWS else ""
    columns = {str(column): str(column) for column in table.columns}
    rows = list(_records(table.head(MAX_ROWS)))
    heading = str(table.index.name or "row")
    caption = name.replace("_", " ").capitalize()
    return {
        "name": name,
        "caption": caption,
        "left_out": left_out,
        "heading": heading,
        "columns": columns,
        "rows": rows,
    }


def _records(table: pd.DataFrame) -> Iterable[tuple[str, dict[Hashable, object]]]:
    return zip(map(str, table.index), table.to_dict("records"), strict=True)


def _sections(pictures: Mapping[str, tuple[bytes, "Picture"]], *, is_named: bool) -> list[dict[str, object]]:
    """The pictures by section; a section without pictures is dropped, except the model."""
    known = {name for _, _, names in SECTIONS.values() for name in names}
    found: list[dict[str, object]] = []
    for anchor, (title, words, names) in SECTIONS.items():
        chosen = [name for name in (names or [name for name in pictures if name not in known]) if name in pictures]
        if chosen or anchor == "model":
            drawn = list(images({name: pictures[name] for name in chosen}))
            if anchor == "new" and is_named:
                title, words = NAMED_GROUP
            found.append({"anchor": anchor, "title": title, "words": words, "images": drawn})
    return found


def images(pictures: Mapping[str, tuple[bytes, "Picture"]]) -> Iterable[dict[str, str]]:
    """The pictures as a page embeds them."""
    for name, (image, picture) in pictures.items():
        yield {
            "name": name,
            "source": f"data:image/png;base64,{b64encode(image).decode()}",
            "alternative": picture.alternative,
            "caption": picture.caption,
            "how_to_read": picture.how_to_read,
        }


def _table(name: str, table: pd.DataFrame) -> dict[str, object]:
    """A table for the page: its rows and their number; of many, the first and the last ten in its order."""
    caption, heading, columns = TABLES[name]
    table = table.set_index(heading) if heading in table.columns else table
    order = table.sort_values("mean", kind="stable") if name == "groups" else table
    if len(table) <= MAX_ROWS:
        kept, left_out = table, ""
    elif name == "groups":
        kept = pd.concat([order.head(MAX_ROWS // 2), order.tail(MAX_ROWS // 2)])
        left_out = f"the {MAX_ROWS // 2} lowest and the {MAX_ROWS // 2} highest means of {len(table)}"
    else:
        kept = table.sort_values("prior", ascending=False, kind="stable").head(MAX_ROWS)
        left_out = f"the {MAX_ROWS} of {len(table)} for which the prior matters most"
    shown = {column: text for column, text in columns.items() if column in table.columns}
    rows = [
        (short(str(label)) if heading else "all", row)
        for label, row in zip(kept.index, kept.to_dict("records"), strict=True)
    ]
    return {"name": name, "caption": caption, "left_out": left_out, "heading": heading, "columns": shown, "rows": rows}
