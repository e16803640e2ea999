"""Logged runs to a comparison: one ranked table, figures, and a run that holds them.

    run ids, a sweep or a filter -> finished runs -> pointwise elpd -> table, words, figures -> MLflow

Nothing is fitted again: the table needs `loo/pointwise.csv` of every run, some of the figures the stored draws.
"""

import argparse
import textwrap
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import xarray as xr
from jinja2 import Environment, StrictUndefined

from poolwise import store, tracking
from poolwise.comparison import WIDTH, Candidate, Comparison, cells, compare, markdown, read_pointwise, text
from poolwise.comparison_figures import FIGURES, MAX_MODELS, Member, absent, draw, png
from poolwise.config import outputs, upgraded
from poolwise.credentials import given_uri, store_uri
from poolwise.errors import UnknownRunError
from poolwise.record import Record
from poolwise.run import exit_codes
from poolwise.store import Logged
from poolwise.terminal import say
from poolwise.tracking import TAG_LIMIT

MEMBERS = "members"  # tag: the ids of the runs that a comparison is of
KIND = "kind"  # tag of a run that is no fit: comparison, sweep or calibration
ID_LENGTH = 32  # of a run id
NOT_FITS = ("comparison", "sweep", "calibration")
GROUPS = ("observed_data", "constant_data", "posterior_predictive")  # of a stored tree


def cli() -> None:
    """The console command `poolwise-compare`."""
    parser = argparse.ArgumentParser(prog="python -m poolwise.compare", description=__doc__)
    parser.add_argument("runs", nargs="*", metavar="RUN_ID", help="the runs to compare")
    parser.add_argument("--sweep", metavar="PARENT_RUN_ID", help="compare the runs of a sweep")
    parser.add_argument("--filter", metavar="SEARCH", help="compare the runs that match, in MLflow's search language")
    parser.add_argument("--tracking-uri", metavar="URI", help="the store; default: MLFLOW_TRACKING_URI, else outputs/")
    parser.add_argument("--experiment", metavar="NAME", help="look for --filter in this experiment alone")
    asked = parser.parse_args()
    if sum([bool(asked.runs), asked.sweep is not None, asked.filter is not None]) != 1:
        parser.error("name the runs in one way: run ids, --sweep PARENT_RUN_ID or --filter SEARCH")
    if asked.experiment is not None and asked.filter is None:
        parser.error("--experiment goes with --filter")
    with exit_codes():
        uri = store_uri(given_uri(asked.tracking_uri), outputs())
        if asked.sweep is not None:
            runs = of_sweep(asked.sweep, uri=uri)
        elif asked.filter is not None:
            runs = matching(asked.filter, uri=uri, experiment=asked.experiment)
        else:
            runs = named(asked.runs, uri=uri)
        compare_runs(runs, uri=uri, outputs=outputs())


def named(run_ids: Sequence[str], *, uri: str) -> list[Logged]:
    """The runs with these ids, each once.

    Raises
    ------
    UnknownRunError
        if the store lacks one of them.
    """
    return [store.logged(run_id, uri=uri) for run_id in dict.fromkeys(run_ids)]


def of_sweep(run_id: str, *, uri: str) -> list[Logged]:
    """The runs of a sweep: its children, and those that its `members` tag lists because it reused them.

    Raises
    ------
    UnknownRunError
        if the store has no such run, or it has no runs.
    """
    parent = store.logged(run_id, uri=uri)
    found = [run for run in store.children(run_id, uri=uri) if run.tags.get(KIND) not in NOT_FITS]
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
        if none does, or the filter is not in MLflow's language.
    """
    found = store.search(search, uri=uri, experiments=[experiment] if experiment is not None else None)
    found = [run for run in found if run.tags.get(KIND) not in NOT_FITS]
    if not found:
        where = f" in experiment {experiment}" if experiment is not None else ""
        raise UnknownRunError(
            f"no run{where} matches {search!r}. Try the filter in the search field of the runs table (`make ui`)."
        )
    return found


def compare_runs(runs: Sequence[Logged], *, uri: str, outputs: Path, parent: str = "") -> str:
    """Compare runs, print the table and log it as a run of its own, whose id is returned.

    Runs that did not finish, or that have no pointwise elpd, are named and left out.

    Parameters
    ----------
    runs : in any order; comparisons and sweeps among them are left out
    parent : the run id of the sweep whose runs they are, if the comparison belongs to it

    Raises
    ------
    ComparisonError
        if fewer than two runs are left, or they were fitted to different data.
    """
    candidates, reasons = _candidates(runs, uri=uri)
    for reason in reasons:
        say(f"left out: {reason}")
    found = compare(candidates)
    by_id = {run.run_id: run for run in runs}
    first = by_id[candidates[0].run_id]
    members = {
        run_id: _member(by_id[run_id], with_draws=place < MAX_MODELS, uri=uri)
        for place, run_id in enumerate(found.table["run_id"])
    }
    missing = [absent(name, list(members.values())) for name in FIGURES]
    remarks = [f"Left out: {each}." for each in reasons]
    remarks += [f"No figure: {each}." for each in missing if each]
    with tracking.logged_run(
        _record(found, first, candidates[0].data_sha256), uri=uri, outputs=outputs, parent=parent
    ) as logged:
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
    lines = [line for each in [*found.words, *remarks] for line in textwrap.wrap(each, WIDTH, subsequent_indent="  ")]
    say(text(found.table), "", *lines, *logged.whereabouts())
    return logged.run_id


def page(found: Comparison, remarks: Sequence[str], pictures: Sequence[tuple[str, bytes, str]]) -> str:
    """The comparison as one self-contained HTML page; `pictures` are names, PNG files and captions."""
    head, *rows = cells(found.table)
    images = [
        (name, f"data:image/png;base64,{b64encode(image).decode()}", caption) for name, image, caption in pictures
    ]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(PAGE).render(
        num_rows=found.num_rows,
        head=head,
        rows=rows,
        words=[*found.words, *remarks],
        images=images,
        names=list(found.differing.columns),
        differing=list(found.differing.itertuples(name=None)),
    )


def _candidates(runs: Sequence[Logged], *, uri: str) -> tuple[list[Candidate], list[str]]:
    """The runs that can be compared, and why the others cannot."""
    candidates, reasons = list[Candidate](), list[str]()
    for run in {each.run_id: each for each in runs}.values():
        if kind := run.tags.get(KIND):
            reasons.append(f"{run.name} ({run.run_id}) is a {kind}")
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


def _record(found: Comparison, first: Logged, data_sha256: str) -> Record:
    members = list(found.table["run_id"])
    return Record(
        name=f"compare {len(members)} runs",
        experiment=first.experiment,
        params={},
        tags={
            KIND: "comparison",
            MEMBERS: ",".join(members[: TAG_LIMIT // (ID_LENGTH + 1)]),
            "data_sha256": data_sha256,
            "mlflow.source.name": "poolwise.compare",
        },
    )


def _member(run: Logged, *, with_draws: bool, uri: str) -> Member:
    """What the figures need of a run; a run whose draws are gone is still in those that need none."""
    tables = {name: store.artifact(run.run_id, f"tables/{name}.csv", uri=uri) for name in ("summary", "new_group")}
    try:
        tree = _tree(store.artifact(run.run_id, "posterior/posterior.nc", uri=uri)) if with_draws else None
    except UnknownRunError:
        tree = None
    return Member(
        pooling=run.params.get("pooling.name", ""),
        likelihood=run.params.get("likelihood.name", ""),
        summary=pd.read_csv(tables["summary"], index_col="parameter", dtype={"parameter": str}),
        new_group=pd.read_csv(tables["new_group"]),
        tree=tree,
    )


def _tree(path: Path) -> xr.DataTree | None:
    """The data and the simulated counts of a stored fit, if it has them."""
    with xr.open_datatree(path, engine="netcdf4") as stored:
        if "posterior_predictive" not in stored:
            return None
        return xr.DataTree.from_dict({name: stored[name].to_dataset().load() for name in GROUPS})


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Comparison of {{ rows|length }} runs</title>
<style>
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { max-width: 84rem; margin: 0 auto; padding: 1.5rem; background: #fff; color: #1a1a1a;
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; }
h2 { font-size: 1.25rem; margin: 2.4rem 0 .6rem; padding-top: .8rem; border-top: 1px solid #d5d5d5; }
p, li, figcaption { max-width: 52rem; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: #555; padding-bottom: .3rem; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #e3e3e3; text-align: right; vertical-align: top; }
tbody th { font-weight: 400; overflow-wrap: anywhere; min-width: 10rem; }
th[scope=row], .text { text-align: left; }
tr.suspect td.verdict { color: #8a3400; font-weight: 700; }
figure { margin: 1.4rem 0 2.2rem; }
figure img { display: block; width: 100%; max-width: 1280px; height: auto; }
@media print { body { max-width: none; padding: 0; font-size: 10pt; } figure, tr { break-inside: avoid; } }
</style>
</head>
<body>
<main>
<h1>Which of {{ rows|length }} runs predicts best?</h1>
<ul>
{% for line in words %}
<li>{{ line }}</li>
{% endfor %}
</ul>
<h2>The ranking</h2>
<div class="wide" tabindex="0" role="region" aria-label="Ranking"><table>
<caption>By elpd_loo on {{ "{:,}".format(num_rows) }} rows; diff is to the best trusted run. In full:
tables/comparison.csv</caption>
<thead><tr>
{% for cell in head %}
<th scope="col"{% if loop.index == 2 or loop.revindex <= 2 %} class="text"{% endif %}>{{ cell }}</th>
{% endfor %}
</tr></thead>
<tbody>
{% for row in rows %}
<tr{% if row[-2] != "trusted" %} class="suspect"{% endif %}><td>{{ row[0] }}</td><th scope="row">{{ row[1] }}</th>
{% for cell in row[2:-2] %}<td>{{ cell }}</td>{% endfor %}
<td class="text verdict">{{ row[-2] }}</td><td class="text">{{ row[-1] }}</td></tr>
{% endfor %}
</tbody></table></div>
<h2>Pictures</h2>
{% for name, source, caption in images %}
<figure>
<img src="{{ source }}" alt="{{ caption }}">
<figcaption>{{ caption }} (figures/{{ name }}.png)</figcaption>
</figure>
{% endfor %}
<h2>What differs between the runs</h2>
{% if differing %}
<div class="wide" tabindex="0" role="region" aria-label="Differences"><table>
<caption>Config keys that differ, tables/differing.csv; an empty field: the run has no such key</caption>
<thead><tr><th scope="col">key</th>{% for name in names %}<th scope="col">{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in differing %}
<tr><th scope="row">{{ row[0] }}</th>{% for cell in row[1:] %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
{% else %}
<p>Nothing: the runs have the same config.</p>
{% endif %}
</main>
</body>
</html>
"""


if __name__ == "__main__":
    cli()
