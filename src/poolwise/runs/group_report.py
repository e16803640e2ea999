"""A logged run to lines that say which of its groups differ, from its stored draws.

Nothing is refitted and nothing is logged. Any finished fit will do: only its posterior, its table and its parameters
are read.
"""

import pandas as pd

from poolwise.checks.group_contrasts import RANK_HIGH, RANK_LOW, TAILS, GroupRates, contrasts, group_rates
from poolwise.checks.groups import GroupsFound, name_of, probability, result
from poolwise.checks.summary import HIGH, INTERVAL, LOW
from poolwise.errors import RequestError
from poolwise.inference.datatree import STORED_DRAW
from poolwise.report.note import DIGITS
from poolwise.runs.load import stored_tree
from poolwise.text import aligned, fitting, number, one_line, short, unknown_group
from poolwise.tracking import store

LABEL = 24  # characters of a label in a table
# columns left out of a table that is too wide, in this order
LEAST_OF_RANKING = ("90% of ranks", "P(> overall)", "rank", "P(lowest)")
LEAST_OF_CONTRASTS = (6, 4, 3)  # the expected loss, and the difference with its interval


def group_report(run_id: str, *, uri: str, against: str | None, above: float | None, top: int, width: int) -> list[str]:
    """Ranking, contrasts with one group, and probabilities of exceeding a rate.

    Parameters
    ----------
    run_id : of the run, or a unique beginning of it
    against : the label of the group to compare all others with; None for no contrasts
    above : a rate; None for no probabilities of exceeding it
    top : rows of a table
    width : characters of a line; the least telling columns of a wider table are left out

    Raises
    ------
    UnknownRunError
        if the store does not have the run, or it has no draws.
    RequestError
        if no group has the label.
    """
    run = store.logged(store.run_id_of(run_id, uri=uri), uri=uri)
    tree = stored_tree(run.run_id, uri=uri)
    posterior, cells = tree["posterior"].to_dataset(), tree["constant_data"].to_dataset()
    summary = None
    if STORED_DRAW in posterior.dims:
        table = store.artifact(run.run_id, "tables/summary.csv", uri=uri)
        summary = pd.read_csv(table, index_col="parameter", dtype={"parameter": str})
    rates = group_rates(posterior, cells, summary)
    judged = one_line(run.tags.get("verdict", "not judged"))
    checked = one_line(run.tags.get("model_check", "not checked"))
    head = f"{one_line(run.name)} ({run.run_id}), {judged}, model check {checked}"
    if rates is None:
        return [head, "this model has one rate only: there are no groups to compare"]
    if against is not None and against not in rates.labels:
        raise RequestError(unknown_group("--against", against, rates.labels))
    found = result(rates, run.params.get("data.group", "group")).value
    lines = [head, *found.lines, "", *_ranking(found, above, top, width)]
    return lines if against is None else [*lines, "", *_contrasts(rates, against, top, width)]


def _ranking(found: GroupsFound, above: float | None, top: int, width: int) -> list[str]:
    """The groups, the highest rate first."""
    table, rates = found.ranking, found.rates
    head = [found.noun, "rate", f"{INTERVAL:.0%} interval", "rank", "90% of ranks"]
    head += ["P(highest)", "P(lowest)", "P(> overall)"]
    exceeding = {} if above is None else dict(zip(rates.labels, rates.above(above), strict=True))
    rows = [
        [
            short(name_of(label), LABEL),
            number(row["rate"], DIGITS),
            f"{number(row[LOW], DIGITS)} to {number(row[HIGH], DIGITS)}",
            f"{row['expected_rank']:.1f}",
            f"{row[RANK_LOW]:.0f} to {row[RANK_HIGH]:.0f}",
            *(probability(row[column]) for column in ("p_highest", "p_lowest", "p_above_overall")),
            *([probability(exceeding[str(label)])] if exceeding else []),
        ]
        for label, row in table.head(top).iterrows()
    ]
    head += [f"P(> {above:g})"] if above is not None else []
    shown = fitting([head, *rows], width, least=[head.index(name) for name in LEAST_OF_RANKING])
    return [*aligned(shown, left={0}), *_rest(len(table), top)]


def _contrasts(rates: GroupRates, against: str, top: int, width: int) -> list[str]:
    """Every other group against one, the highest rate first."""
    table = contrasts(rates, against)
    head = [f"against {short(name_of(against), LABEL)}", "ratio", f"{INTERVAL:.0%} interval", "difference"]
    head += [f"{INTERVAL:.0%} interval", "P(higher)", "expected loss"]
    rows = [
        [
            short(name_of(label), LABEL),
            *_with_interval(row, "ratio"),
            *_with_interval(row, "difference"),
            probability(row["p_greater"]),
            number(row["expected_loss"]),
        ]
        for label, row in table.head(top).iterrows()
    ]
    shown = fitting([head, *rows], width, least=LEAST_OF_CONTRASTS)
    return [*aligned(shown, left={0}), *_rest(len(table), top)]


def _with_interval(row: pd.Series, name: str) -> tuple[str, str]:
    low, high = (number(row[f"{name}_{share:.0%}"]) for share in TAILS)
    return number(row[name]), f"{low} to {high}"


def _rest(size: int, top: int) -> list[str]:
    """How many rows a table leaves out."""
    return [f"and {size - top:,} more: --top {size}"] if size > top else []
