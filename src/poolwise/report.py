"""A run to one self-contained page: question, answer, trust, pictures, tables, how to repeat it.

It is written for someone who has never seen the project: every part says what it is for, and every picture what to
look for.

Nothing is fetched: pictures are embedded, the style is inline and there is no script, so that the page opens
from a file, in an artifact viewer and on paper alike. All that came from the data or the config is escaped.
"""

import math
from base64 import b64encode
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from poolwise import figures_names
from poolwise.report_words import answer, cell, label_of, model_maths, model_words, number, question, short, unit

if TYPE_CHECKING:
    from poolwise.checks import Loo, Verdict
    from poolwise.counts.cells import Counts
    from poolwise.inference.predictive import NewGroup

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
SECTIONS = figures_names.SECTIONS | {"more": ("More", "", ())}  # of the pictures; the last holds any other
NAMED_GROUP = ("A group of the data", "What one more count of it would be.")  # of "new", if one is asked for
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
        "How far the posterior moves when prior or likelihood count a little more or less",
        "parameter",
        {"prior": "prior", "likelihood": "likelihood", "diagnosis": "diagnosis"},
    ),
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
    tables: Mapping[str, pd.DataFrame] | None = None,
    data_words: str = "",
    exact: pd.DataFrame | None = None,
    exact_limit: float = 4.0,
    leave_group_out: pd.DataFrame | None = None,
    prior_warnings: Sequence[str] = (),
    sensitivity_words: Sequence[str] = (),
    replaced_rows: int = 0,
    pareto_k_before: float | None = None,
) -> str:
    """Render one run as an HTML page.

    Parameters
    ----------
    pooling, likelihood : keys of `model.POOLINGS` and `model.LIKELIHOODS`
    priors : site -> family under `name` and its parameters, as in the config
    summary : see `checks.summarise`
    pictures : name -> bytes of a PNG file and its caption; each goes to its section, others to the end
    command : what runs this again, without a prompt
    config : the resolved config as text
    stack : name -> version of what the result depends on
    commit : of the source, with a word if it was changed; may be empty
    tables : name -> table, as the figures of that name have them; of these counts, groups, statistics and sensitivity
        are shown
    data_words : what the variance of the counts hints at, as of `explore.hint`
    exact : a row a quantity, its name as index; columns fit, exact, mcse (of the fit) and z, NaN where there is none:
        means and standard deviations with their z-scores, `elpd_loo`, and `log marginal likelihood` with no fit
    exact_limit : what |z| may be, as `oracle.Comparison` has it
    leave_group_out : a row a group, its label as index or in a column `group`; columns elpd, mcse and, where some are
        in doubt, suspect
    prior_warnings : where the priors have the data in their far tail, as of `prior_scale.lines`
    sensitivity_words : which priors weigh more than the data, as of `sensitivity.lines`
    replaced_rows : rows whose leave-one-out value was made again with the rates integrated out
    pareto_k_before : the largest Pareto k before it was
    """
    environment = Environment(
        loader=PackageLoader("poolwise"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "short": short, "cell": cell}
    tables = tables or {}
    rates = summary.loc[[name for name in summary.index if name == "lam" or name.startswith("lam.")]]
    return environment.get_template("report.html").render(
        title=question(counts),
        counts=counts,
        unit=unit(counts),
        pooling=pooling,
        answer=answer(rates, summary, counts, pooling),
        answer_rows=_answer_rows(rates, summary),
        num_rates=len(rates),
        new_group=new_group,
        at_exposure=f" at exposure {new_group.exposure:g}" if counts.columns.exposure else "",
        above=new_group.above,
        group_label=new_group.label,
        new_range=[_quantile(new_group.table, p) for p in (0.05, 0.95)],
        new_rows=[(p, _quantile(new_group.table, p)) for p in PROBABILITIES],
        loo=loo,
        verdict=verdict,
        gate=_gate(summary, verdict, loo, limits),
        replaced=_replaced(replaced_rows, pareto_k_before, loo.k_threshold, counts.num_rows),
        exact=None if exact is None else _exact(exact, exact_limit),
        left_out=None if leave_group_out is None else _left_out(leave_group_out),
        prior_warnings=prior_warnings,
        sensitivity_words=sensitivity_words,
        model_words=model_words(pooling, likelihood),
        model_maths=model_maths(pooling, likelihood, priors, has_exposure=counts.columns.exposure is not None),
        sections=_sections(pictures, is_named=new_group.label is not None),
        data_words=data_words,
        statistics=tables.get("statistics"),
        tables=[_table(name, tables[name]) for name in TABLES if name in tables],
        columns=COLUMNS,
        summary_rows=_extremes(summary, rates).to_dict("index"),
        num_parameters=len(summary),
        command=command,
        config=config,
        stack=stack,
        commit=commit,
    )


def _answer_rows(rates: pd.DataFrame, summary: pd.DataFrame) -> list[tuple[str, pd.Series]]:
    """Rows of the small table: the rates, and what describes the groups as a whole."""
    shown = _extremes(rates, rates)
    rows = [(label_of(str(name)), shown.loc[name]) for name in shown.index]
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


def _replaced(rows: int, before: float | None, threshold: float, num_rows: int) -> str:
    """What was done about leave-one-out values that the draws alone cannot tell; empty if nothing was."""
    if not rows:
        return ""
    text = (
        f"The leave-one-out values of {rows:,} of {num_rows:,} rows were replaced by values with the rates "
        "integrated out"
    )
    text += f"; before, the largest Pareto k was {before:.2f} (limit {threshold:.2f})" if before is not None else ""
    return f"{text}. The conditions judge the values as they now are."


def _exact(table: pd.DataFrame, limit: float) -> dict[str, object]:
    """The exact answer against the fit: its rows, the worst first where there are many, and what they amount to."""
    z = table["z"].abs().dropna()
    words = ""
    if len(z):
        agrees = "agrees with it" if z.max() <= limit else "does not agree with it"
        words = (
            f"The fit {agrees}: the largest of {len(z)} z-scores is {z.max():.2f} ({short(str(z.idxmax()))}), where up "
            f"to {limit:.1f} is chance."
        )
    kept = table
    if len(table) > MAX_ROWS:
        worst = set(z.sort_values(ascending=False, kind="stable").index[:MAX_ROWS])
        kept = table[[name in worst or math.isnan(score) for name, score in table["z"].items()]]
    return {"words": words, "rows": list(_records(kept)), "of": len(table)}


def _left_out(table: pd.DataFrame) -> dict[str, object]:
    """Groups predicted from the others: the rows, of many those least expected, and their total with its errors."""
    table = table.set_index("group") if "group" in table.columns else table
    elpd, size = table["elpd"], len(table)
    doubtful = table["suspect"].astype(bool) if "suspect" in table.columns else pd.Series(False, index=table.index)
    kept = table if size <= MAX_ROWS else table.loc[elpd.sort_values(kind="stable").index[:MAX_ROWS]]
    return {
        "rows": [(short(str(label)), row) for label, row in _records(kept[["elpd", "mcse"]])],
        "of": size,
        "total": float(elpd.sum()),
        "mcse": math.sqrt(float((table["mcse"] ** 2).sum())),
        "se": math.sqrt(size) * float(elpd.std()) if size > 1 else math.nan,
        "doubtful": [short(str(label)) for label in table.index[doubtful.to_numpy()]],
    }


def _records(table: pd.DataFrame) -> Iterable[tuple[str, dict[Hashable, object]]]:
    return zip(map(str, table.index), table.to_dict("records"), strict=True)


def _sections(pictures: Mapping[str, tuple[bytes, str]], *, is_named: bool) -> list[dict[str, object]]:
    """The pictures by section; one without pictures is left out, but for the model."""
    known = {name for _, _, names in SECTIONS.values() for name in names}
    found: list[dict[str, object]] = []
    for anchor, (title, words, names) in SECTIONS.items():
        chosen = [name for name in (names or [name for name in pictures if name not in known]) if name in pictures]
        if chosen or anchor == "model":
            images = list(_images(chosen, pictures))
            if anchor == "new" and is_named:
                title, words = NAMED_GROUP
            found.append({"anchor": anchor, "title": title, "words": words, "images": images})
    return found


def _images(names: Iterable[str], pictures: Mapping[str, tuple[bytes, str]]) -> Iterable[dict[str, str]]:
    for name in names:
        image, caption = pictures[name]
        yield {"name": name, "source": f"data:image/png;base64,{b64encode(image).decode()}", "caption": caption}


def _table(name: str, table: pd.DataFrame) -> dict[str, object]:
    """A table for the page: its rows, and how many there are; of many, the first and the last ten in its order."""
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


def _quantile(table: pd.DataFrame, probability: float) -> int:
    """Smallest count that a new group's count does not exceed with this probability."""
    place = int(table["cumulative"].searchsorted(probability))
    return int(table["count"].iloc[min(place, len(table) - 1)])
