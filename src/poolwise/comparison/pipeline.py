"""Logged runs to a comparison: ranked tables, figures, and a run that contains them.

    run ids, a sweep or a filter -> finished runs -> pointwise elpd -> table, sentences, figures -> MLflow

Nothing is refitted: the table needs `loo/pointwise.csv` of every run, some figures need the stored draws.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from poolwise.comparison.figures import FIGURES, Member, absent, draw
from poolwise.comparison.page import page
from poolwise.comparison.ranking import Comparison, compare
from poolwise.comparison.reading import candidates_of, members_of
from poolwise.comparison.record import FINGERPRINT, MEMBERS, record
from poolwise.comparison.table import markdown, text
from poolwise.errors import UnknownRunError, UnreachableError
from poolwise.figures.base import Picture
from poolwise.figures.style import png
from poolwise.report.terminal import say
from poolwise.text import WIDTH, terminal_width, wrapped
from poolwise.tracking import run as tracking
from poolwise.tracking import store, ui_pages
from poolwise.tracking.record import Record
from poolwise.tracking.store import Logged

REUSED = "the same code compared these runs before"


def named(run_ids: Sequence[str], *, uri: str) -> list[Logged]:
    """The runs with these ids, or unique beginnings of ids, each once.

    Raises
    ------
    UnknownRunError
        if the store does not have one of them.
    """
    ids = dict.fromkeys(store.run_id_of(each, uri=uri) for each in run_ids)
    return [store.logged(run_id, uri=uri) for run_id in ids]


def of_sweep(run_id: str, *, uri: str) -> list[Logged]:
    """The runs of a sweep: its children, and the reused runs that its `members` tag lists.

    Raises
    ------
    UnknownRunError
        if the store does not have the sweep, or the sweep has no runs.
    """
    run_id = store.run_id_of(run_id, uri=uri)
    parent = store.logged(run_id, uri=uri)
    found = [run for run in store.children(run_id, uri=uri) if run.is_fit]
    others = [each for each in parent.tags.get(MEMBERS, "").split(",") if each]
    known = {run.run_id for run in found}
    found += named([each for each in others if each not in known], uri=uri)
    if not found:
        raise UnknownRunError(f"run {run_id} ({parent.name}) has no runs of its own. Name the parent run of a sweep.")
    return found


def matching(search: str, *, uri: str, experiment: str | None = None) -> list[Logged]:
    """The fits that match a filter, without sweeps and comparisons.

    Raises
    ------
    UnknownRunError
        if no run matches, or the filter is not valid in MLflow's search language.
    """
    found = store.search(search, uri=uri, experiments=[experiment] if experiment is not None else None)
    found = [run for run in found if run.is_fit]
    if not found:
        where = f" in experiment {experiment}" if experiment is not None else ""
        raise UnknownRunError(
            f"no run{where} matches {search!r}. Try the filter in the search field of the runs table (`make ui`)."
        )
    return found


def compare_runs(runs: Sequence[Logged], *, uri: str, outputs: Path, parent: str = "") -> str:
    """Compare runs, print the table, log it as a new run and return the id of that run.

    If the same code compared the same runs before, that comparison is reused and nothing is logged. Runs that did not
    finish or have no pointwise elpd are reported and left out.

    Parameters
    ----------
    runs : in any order; comparisons and sweeps among them are left out
    parent : the run id of the sweep, if the comparison belongs to one

    Raises
    ------
    ComparisonError
        if fewer than two runs remain, or they were fitted to different tables.
    """
    candidates, reasons = candidates_of(runs, uri=uri)
    for reason in reasons:
        say(f"left out: {reason}")
    found = compare(candidates)
    by_id = {run.run_id: run for run in runs}
    first = by_id[candidates[0].run_id]
    made = record(found, experiment=first.experiment, data_sha256=candidates[0].data_sha256, left_out=reasons)
    if earlier := _earlier(made, uri=uri):
        say(*_lines(found), f"run     {earlier.run_id}, reused: {REUSED}")
        return earlier.run_id
    members, strangers = members_of([by_id[run_id] for run_id in found.table["run_id"]], uri=uri)
    missing = [absent(name, list(members.values())) for name in FIGURES]
    remarks = [f"Left out: {each}." for each in reasons]
    remarks += [f"Without figures: {each}." for each in strangers]
    remarks += [f"No figure {each}." for each in missing if each]
    with tracking.logged_run(made, uri=uri, outputs=outputs, parent=parent) as logged:
        _write(logged, found, members, remarks)
        links = {
            run_id: ui_pages.RUN.format(logged.experiment_id, run_id)
            for run_id in found.table["run_id"]
            if by_id[run_id].experiment == first.experiment
        }
        logged.record.note = _note(found, remarks, links)
    say(*_lines(found, remarks), *logged.location_lines())
    return logged.run_id


def _earlier(made: Record, *, uri: str) -> Logged | None:
    """The newest finished comparison of the same runs by the same code."""
    where = f"tags.{FINGERPRINT} = '{made.tags[FINGERPRINT]}' and attributes.status = 'FINISHED'"
    with suppress(UnreachableError):
        return next(iter(store.search(where, uri=uri, experiments=[made.experiment])), None)
    return None


def _write(logged: tracking.Run, found: Comparison, members: Mapping[str, Member], remarks: Sequence[str]) -> None:
    """The tables, figures and page of a comparison."""
    logged.write("tables/comparison.csv", found.table.to_csv(index=False))
    logged.write("tables/runs.csv", found.runs.to_csv(index=False))
    logged.write("tables/differing.csv", found.differing.to_csv())
    if found.by_groups is not None:
        logged.write("tables/comparison_by_groups.csv", found.by_groups.to_csv(index=False))
    pictures: dict[str, tuple[bytes, Picture]] = {}
    for name, picture in draw(list(FIGURES), found.table, members):
        image = png(picture.figure)
        pictures[name] = image, picture
        logged.write(f"figures/{name}.png", image)
    logged.write("comparison.html", page(found, remarks, pictures))


def _note(found: Comparison, remarks: Sequence[str], links: Mapping[str, str]) -> str:
    """The comparison in Markdown: what is best, the tables, and the rest in words."""
    first, *rest = [f"- {line}\n" for line in [*found.words, *remarks]]
    parts = [first, markdown(found.table, found.labels, links), "".join(rest)]
    if found.by_groups is not None:
        parts[2:2] = ["By groups left out:", markdown(found.by_groups, found.labels, links)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _lines(found: Comparison, remarks: Sequence[str] = ()) -> list[str]:
    """The comparison at the terminal, as wide as it is."""
    width = terminal_width()
    tables = [text(found.table, found.labels, width=width), ""]
    if found.by_groups is not None:
        tables += ["by groups left out:", text(found.by_groups, found.labels, width=width), ""]
    return tables + [line for each in [*found.words, *remarks] for line in wrapped(each, min(width, WIDTH))]
