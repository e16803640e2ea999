"""The artifacts of a run: inputs before the fit, findings after it."""

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import xarray as xr
import yaml

from poolwise.counts import description
from poolwise.counts.cells import MOST_ROWS
from poolwise.provenance import fingerprints, stack
from poolwise.report import note, page
from poolwise.runs.job import JudgedFit
from poolwise.tracking.run import Run

if TYPE_CHECKING:
    from poolwise.checks.base import FitView
    from poolwise.figures.base import Picture
    from poolwise.runs.job import Job

COMPRESSED, COUNTED = {"zlib": True, "complevel": 4}, ("posterior_predictive", "prior_predictive_cells")
TABLE_OF = {"new_group": "group_rate"}  # figure -> name of its table, if the names differ


def write_inputs(job: "Job", run: Run) -> None:
    """Write settings, environment, code and, if it is small, the data."""
    settings, sha256 = job.config.resolved(), job.counts.sha256
    run.write("config/resolved.yaml", _yaml(settings))
    run.write("config/resolved.json", _json(settings))
    run.write("config/overrides.yaml", _yaml(list(job.overrides)))
    run.write("environment/requirements.txt", stack.distributions())
    run.write("environment/stack.json", _json(job.stack))
    run.write("environment/fingerprint.json", _json(fingerprints.run_ingredients(settings, sha256)))
    code, lock = job.code, job.code.lock
    run.write("code/commit.json", _json({"state": code.state, "commit": code.commit, "branch": code.branch}))
    run.write("code/files.json", _json(dict(code.files)))
    run.write("code/lock.json", _json({"name": lock.name, "sha256": lock.sha256, "departures": lock.departures}))
    if lock.changed:
        run.write("environment/requirements.lock", lock.changed)
    if code.patch:
        run.write("code/changes.patch", code.patch)
    source = Path(job.counts.path)
    if source.stat().st_size <= job.config.tracking.table_limit_mb * 2**20:
        run.write(f"data/{source.name}", source.read_bytes())


def write_findings(job: "Job", findings: JudgedFit, run: Run) -> None:
    """Write draws, pointwise elpd, tables, figures and the report."""
    view = findings.view
    write_tree(view.tree, run.artifacts / "posterior" / "posterior.nc")
    run.write("posterior/sha256.json", _json(findings.digests))
    run.write("loo/pointwise.csv", csv(pointwise(view), index=False))
    found, pictures = tables(view), {}
    with job.stage("figures"):
        for name, content, picture in drawn(job.config.plots.figures, view):
            pictures[name] = content, picture
            run.write(f"figures/{name}.png", content)
            if picture.table is not None:
                found.setdefault(TABLE_OF.get(name, name), picture.table)
    for name, table in found.items():
        run.write(f"tables/{name}.csv", csv(table, index=table.index.name is not None))
    run.write("report.html", page.render(view, pictures=pictures, tables=found, run=facts(job, run.run_id)))


def drawn(names: Sequence[str], view: "FitView") -> Iterator[tuple[str, bytes, "Picture"]]:
    """Name, bytes of a PNG file and picture of each of these figures."""
    if names:
        from poolwise.figures import registry  # after the answer, and only if a figure is drawn

        for name, picture in registry.draw(names, view):
            yield name, registry.png(picture.figure), picture


def csv(table: pd.DataFrame, *, index: bool) -> str | bytes:
    """A table as CSV; a large one by pyarrow, in a tenth of the time."""
    if len(table) <= MOST_ROWS:
        return table.to_csv(index=index)
    sink = io.BytesIO()
    columns = pa.Table.from_pandas(table.reset_index() if index else table, preserve_index=False)
    pyarrow.csv.write_csv(columns, sink, pyarrow.csv.WriteOptions(quoting_style="needed"))
    return sink.getvalue()


def tables(view: "FitView") -> dict[str, pd.DataFrame]:
    """The tables of findings by name; a table with a named index is written with it."""
    new = view.new_group
    kind = "new_group" if new.label is None else "group"
    above = {f"{kind}_above": pd.DataFrame(new.above, columns=["count", "probability_above"])} if new.above else {}
    return {
        "summary": view.summary,
        kind: new.table,
        **({"new_groups": view.new_groups.table} if view.new_groups else {}),
        "counts": description.summary(view.counts),
        "groups": description.by_group(view.counts),
        **above,
        **view.tables,
    }


def facts(job: "Job", run_id: str) -> page.RunFacts:
    """Command, config, stack and commit of the run, for its report."""
    return page.RunFacts(
        command=f"{note.reproduction(run_id)}\n{note.command(job.overrides)}",
        config=_yaml(job.config.resolved()),
        stack={name: str(value) for name, value in job.stack.items() if not isinstance(value, dict | list)},
        commit=job.code.state,
    )


def pointwise(view: "FitView") -> pd.DataFrame:
    """One row per cell: group, exposure, count, multiplicity, elpd (of one of its rows, left out) and pareto_k.

    With covariates also its row of the design matrix, `x.<effect>`.
    `replaced`: elpd is from integrated importance sampling instead of PSIS; `pareto_k_psis`: the Pareto k of PSIS.
    """
    cells, loo = view.cells, view.loo
    return pd.DataFrame(
        {
            "group": cells["group"].values[cells["cell_group"].values],
            "exposure": cells["cell_exposure"].values,
            **{f"x.{name}": column for name, column in zip(view.model.effects, view.counts.cell_x.T, strict=True)},
            "count": cells["cell_count"].values,
            "multiplicity": cells["cell_multiplicity"].values,
            "elpd": loo.cell_elpd,
            "pareto_k": loo.pareto_k,
            "replaced": loo.psis is not None,
            "pareto_k_psis": (loo.psis or loo).pareto_k,
        }
    )


def write_tree(tree: xr.DataTree, path: Path) -> None:
    """Write a DataTree as netCDF, atomically; simulated counts are compressed, draws are not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.part")
    simulated = {name: tree[name].to_dataset() for name in COUNTED if name in tree}
    encoding = {f"/{name}": dict.fromkeys(map(str, each.data_vars), COMPRESSED) for name, each in simulated.items()}
    tree.to_netcdf(scratch, engine="netcdf4", encoding=encoding)
    scratch.replace(path)


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True)


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
