"""What a run leaves in its folder: inputs before the fit, findings after it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import xarray as xr
import yaml

from poolwise import checks, figures, provenance, report, sensitivity, words
from poolwise.counts import description
from poolwise.tracking import Run

if TYPE_CHECKING:
    from poolwise.findings import Findings
    from poolwise.leave_out import Replaced
    from poolwise.pipeline import Job

COMPRESSED = {
    f"/{name}": {"y": {"zlib": True, "complevel": 4}} for name in ("posterior_predictive", "prior_predictive")
}
OF_CHECKS = ("sensitivity", "leave_group_out")  # figures that are drawn where the table of their name was made
TABLE_OF = {"new_group": "group_rate"}  # the name of the table of a picture, where it is not that of the picture


def write_inputs(job: "Job", run: Run) -> None:
    """Settings, environment, code and, while it is small, the data."""
    settings, sha256 = job.config.resolved(), job.counts.sha256
    run.write("config/resolved.yaml", _yaml(settings))
    run.write("config/resolved.json", _json(settings))
    run.write("config/overrides.yaml", _yaml(list(job.overrides)))
    run.write("environment/requirements.txt", provenance.distributions())
    run.write("environment/stack.json", _json(job.stack))
    run.write("environment/fingerprint.json", _json(provenance.run_ingredients(settings, sha256)))
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


def write_findings(job: "Job", findings: "Findings", run: Run) -> None:
    """Draws, pointwise predictive accuracy, tables, figures and the report."""
    write_tree(findings.tree, run.artifacts / "posterior" / "posterior.nc")
    run.write("posterior/sha256.json", _json(findings.digests))
    run.write("loo/pointwise.csv", pointwise(findings.tree, findings.left_out).to_csv(index=False))
    found = tables(job, findings)
    pictures = {}
    with job.stage("figures"):
        for name, picture in draw(job, findings, found):
            pictures[name] = figures.png(picture.figure), picture.caption
            run.write(f"figures/{name}.png", pictures[name][0])
            if picture.table is not None:
                found.setdefault(TABLE_OF.get(name, name), picture.table)
    for name, table in found.items():
        run.write(f"tables/{name}.csv", table.to_csv(index=table.index.name is not None))
    run.write("report.html", page(job, findings, pictures, found, run.run_id))


def tables(job: "Job", findings: "Findings") -> dict[str, pd.DataFrame]:
    """What was found, by name; a table with a named index is written with it."""
    new = findings.new_group
    kind = "new_group" if new.label is None else "group"
    found = {
        "summary": findings.summary,
        kind: new.table,
        "counts": description.summary(job.counts),
        "groups": description.by_group(job.counts),
    }
    if new.above:
        found[f"{kind}_above"] = pd.DataFrame(new.above, columns=["count", "probability_above"])
    if findings.comparison:
        found["exact"] = findings.comparison.table
    if findings.sensitivity is not None:
        found["sensitivity"] = findings.sensitivity
    if out := findings.groups_out:
        columns = {name: getattr(out, name) for name in ("elpd", "mcse", "pareto_k", "r_hat", "ess", "divergences")}
        columns |= {"suspect": [label in out.suspect for label in out.labels]}
        found["leave_group_out"] = pd.DataFrame(columns, index=pd.Index(out.labels, name="group"))
    return found


def draw(job: "Job", findings: "Findings", found: Mapping[str, pd.DataFrame]) -> Iterator[tuple[str, figures.Picture]]:
    """The figures that are asked for, less those of checks that are off."""
    names = [name for name in job.config.plots.figures if name not in OF_CHECKS or name in found]
    return figures.draw(
        names,
        findings.tree,
        summary=findings.summary,
        pareto_k=findings.loo.pareto_k,
        k_threshold=findings.loo.k_threshold,
        counts=job.counts,
        model=job.model,
        values=job.values,
        cell_elpd=findings.loo.cell_elpd,
        cell_below=findings.below() if {"loo_pit", "calibration"} & set(names) else None,
        new_group=findings.new_group,
        sensitivity=found.get("sensitivity"),
        leave_group_out=found.get("leave_group_out"),
    )


def page(
    job: "Job",
    findings: "Findings",
    pictures: dict[str, tuple[bytes, str]],
    found: Mapping[str, pd.DataFrame],
    run_id: str,
) -> str:
    """The report of the run."""
    return report.render(
        counts=job.counts,
        pooling=job.model.pooling,
        likelihood=job.model.likelihood,
        priors=job.config.prior,
        summary=findings.summary,
        loo=findings.loo,
        verdict=findings.verdict,
        limits=report.Limits(
            r_hat=checks.R_HAT_MAX,
            ess=checks.ESS_PER_CHAIN * job.config.sampler.num_chains,
            bfmi=checks.BFMI_MIN,
        ),
        new_group=findings.new_group,
        pictures=pictures,
        tables=found,
        data_words=description.hint(job.counts),
        exact=found.get("exact"),
        exact_limit=findings.comparison.limit if findings.comparison else 4.0,
        leave_group_out=found.get("leave_group_out"),
        prior_warnings=job.warnings,
        sensitivity_words=[] if findings.sensitivity is None else sensitivity.lines(findings.sensitivity),
        replaced_rows=findings.left_out.num_rows,
        pareto_k_before=findings.left_out.k_max_before,
        command=f"{words.reproduction(run_id)}\n{words.command(job.overrides)}",
        config=_yaml(job.config.resolved()),
        stack={name: str(value) for name, value in job.stack.items() if not isinstance(value, dict | list)},
        commit=job.code.state,
    )


def pointwise(tree: xr.DataTree, left_out: "Replaced") -> pd.DataFrame:
    """A row a cell: group, exposure, count, multiplicity, elpd (of one of its rows, left out) and pareto_k.

    Also whether PSIS's own value was replaced, and the Pareto k that it had.
    """
    constant = tree["constant_data"].to_dataset()
    return pd.DataFrame(
        {
            "group": constant["group"].values[constant["cell_group"].values],
            "exposure": constant["cell_exposure"].values,
            "count": constant["cell_count"].values,
            "multiplicity": constant["cell_multiplicity"].values,
            "elpd": left_out.loo.cell_elpd,
            "pareto_k": left_out.loo.pareto_k,
            "replaced": left_out.is_replaced,
            "pareto_k_psis": left_out.pareto_k_before,
        }
    )


def write_tree(tree: xr.DataTree, path: Path) -> None:
    """Write a DataTree as netCDF, whole or not at all; simulated counts compressed, draws as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.part")
    encoding = {group: settings for group, settings in COMPRESSED.items() if group[1:] in tree}
    tree.to_netcdf(scratch, engine="netcdf4", encoding=encoding)
    scratch.replace(path)


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True)


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
