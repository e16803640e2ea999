"""Logged runs to a comparison: one ranked table, figures, and a run that contains them.

    run ids, a sweep or a filter -> finished runs -> pointwise elpd -> table, sentences, figures -> MLflow

Nothing is refitted: the table needs `loo/pointwise.csv` of every run, some figures need the stored draws.
"""

import textwrap
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pandas as pd
import xarray as xr

from poolwise.comparison.figures import FIGURES, MAX_MODELS, Member, absent, draw
from poolwise.comparison.page import page
from poolwise.comparison.ranking import WIDTH, Candidate, Comparison, compare, markdown, read_pointwise, text
from poolwise.config import upgraded
from poolwise.errors import UnknownRunError, UnreachableError
from poolwise.figures.style import png
from poolwise.model.poolings import POOLINGS
from poolwise.provenance.fingerprints import SOURCE, fingerprint, source_digest
from poolwise.report.terminal import say
from poolwise.tracking import run as tracking
from poolwise.tracking import store
from poolwise.tracking.record import Record
from poolwise.tracking.run import TAG_LIMIT
from poolwise.tracking.store import Logged

MEMBERS = "members"  # tag: the ids of the compared runs
FINGERPRINT = "comparison_fingerprint"  # tag: of the compared runs, those left out and the code
REUSED = "the same code compared these runs before"
GROUPS = ("observed_data", "constant_data", "posterior_predictive")  # of a stored tree


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
    found = [run for run in store.children(run_id, uri=uri) if not run.kind]
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
    found = [run for run in found if not run.kind]
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
        if fewer than two runs remain, or they were fitted to different data.
    """
    candidates, reasons = _candidates(runs, uri=uri)
    for reason in reasons:
        say(f"left out: {reason}")
    found = compare(candidates)
    by_id = {run.run_id: run for run in runs}
    first = by_id[candidates[0].run_id]
    record = _record(found, first, candidates[0].data_sha256, reasons)
    if earlier := _earlier(record, uri=uri):
        say(text(found.table), "", *_wrapped(found.words), f"run     {earlier.run_id}, reused: {REUSED}")
        return earlier.run_id
    members = {
        run_id: _member(by_id[run_id], with_draws=place < MAX_MODELS, uri=uri)
        for place, run_id in enumerate(found.table["run_id"])
    }
    missing = [absent(name, list(members.values())) for name in FIGURES]
    remarks = [f"Left out: {each}." for each in reasons]
    remarks += [f"No figure: {each}." for each in missing if each]
    with tracking.logged_run(record, uri=uri, outputs=outputs, parent=parent) as logged:
        logged.write("tables/comparison.csv", found.table.to_csv(index=False))
        logged.write("tables/differing.csv", found.differing.to_csv())
        pictures = []
        for name, picture in draw(list(FIGURES), found.table, members):
            pictures.append((name, png(picture.figure), picture.caption))
            logged.write(f"figures/{name}.png", pictures[-1][1])
        logged.write("comparison.html", page(found, remarks, pictures))
        links = {
            run_id: f"#/experiments/{logged.experiment_id}/runs/{run_id}"
            for run_id in members
            if by_id[run_id].experiment == first.experiment
        }
        words = "\n".join(f"- {line}" for line in [*found.words, *remarks])
        logged.record.note = f"{markdown(found.table, links)}\n\n{words}\n"
    say(text(found.table), "", *_wrapped([*found.words, *remarks]), *logged.location_lines())
    return logged.run_id


def _wrapped(sentences: Sequence[str]) -> list[str]:
    return [line for each in sentences for line in textwrap.wrap(each, WIDTH, subsequent_indent="  ")]


def _earlier(record: Record, *, uri: str) -> Logged | None:
    """The newest finished comparison of the same runs by the same code."""
    where = f"tags.{FINGERPRINT} = '{record.tags[FINGERPRINT]}' and attributes.status = 'FINISHED'"
    with suppress(UnreachableError):
        return next(iter(store.search(where, uri=uri, experiments=[record.experiment])), None)
    return None


def _candidates(runs: Sequence[Logged], *, uri: str) -> tuple[list[Candidate], list[str]]:
    """The comparable runs, and why the others are not comparable."""
    candidates, reasons = list[Candidate](), list[str]()
    for run in {each.run_id: each for each in runs}.values():
        if run.kind:
            reasons.append(f"{run.name} ({run.run_id}) is a {run.kind}")
        elif run.status != "FINISHED":
            reasons.append(f"{run.name} ({run.run_id}) is {run.status}")
        else:
            try:
                path = store.artifact(run.run_id, "loo/pointwise.csv", uri=uri)
            except UnknownRunError:
                reasons.append(f"{run.name} ({run.run_id}) has no loo/pointwise.csv")
                continue
            candidates.append(_candidate(run, path))
    return candidates, reasons


def _candidate(run: Logged, pointwise: Path) -> Candidate:
    return Candidate(
        run_id=run.run_id,
        name=run.name,
        data_sha256=run.tags.get("data_sha256", ""),
        verdict=run.tags.get("verdict", "unknown"),
        params=upgraded(run.params),
        p_loo=run.metrics.get("p_loo", float("nan")),
        k_max=run.metrics.get("pareto_k_max", float("nan")),
        pointwise=read_pointwise(pointwise),
    )


def _record(found: Comparison, first: Logged, data_sha256: str, left_out: Sequence[str] = ()) -> Record:
    members = list(found.table["run_id"])
    deciding = {"members": sorted(members), "left_out": sorted(left_out), "all_source": source_digest(SOURCE)}
    return Record(
        name=f"compare {len(members)} runs",
        experiment=first.experiment,
        params={},
        tags={
            store.KIND: "comparison",
            MEMBERS: ",".join(members[: TAG_LIMIT // (store.ID_LENGTH + 1)]),
            FINGERPRINT: fingerprint(deciding),
            "data_sha256": data_sha256,
            "mlflow.source.name": "poolwise.compare",
        },
    )


def _member(run: Logged, *, with_draws: bool, uri: str) -> Member:
    """The inputs of the figures for a run; without stored draws the run is still in figures that need none."""
    tables = {name: store.artifact(run.run_id, f"tables/{name}.csv", uri=uri) for name in ("summary", "new_group")}
    try:
        tree = _tree(store.artifact(run.run_id, "posterior/posterior.nc", uri=uri)) if with_draws else None
    except UnknownRunError:
        tree = None
    return Member(
        pooling=POOLINGS[run.params["pooling.name"]],
        likelihood=run.params.get("likelihood.name", ""),
        summary=pd.read_csv(tables["summary"], index_col="parameter", dtype={"parameter": str}),
        new_group=pd.read_csv(tables["new_group"]),
        tree=tree,
    )


def _tree(path: Path) -> xr.DataTree | None:
    """The data and simulated counts of a stored fit, if it has them."""
    with xr.open_datatree(path, engine="netcdf4") as stored:
        if "posterior_predictive" not in stored:
            return None
        return xr.DataTree.from_dict({name: stored[name].to_dataset().load() for name in GROUPS})
