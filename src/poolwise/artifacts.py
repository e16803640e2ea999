"""What a run leaves in its folder: inputs before the fit, findings after it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import xarray as xr
import yaml

from poolwise import checks, figures, provenance, report, words
from poolwise.tracking import Run

if TYPE_CHECKING:
    from poolwise.checks import Loo
    from poolwise.pipeline import Findings, Job


def write_inputs(job: "Job", run: Run) -> None:
    """Settings, environment, code and, while it is small, the data."""
    settings, sha256 = job.config.resolved(), job.counts.sha256
    run.write("config/resolved.yaml", _yaml(settings))
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
    run.write("loo/pointwise.csv", pointwise(findings.tree, findings.loo).to_csv(index=False))
    run.write("tables/summary.csv", findings.summary.to_csv())
    run.write("tables/new_group.csv", findings.new_group.table.to_csv(index=False))
    pictures = {}
    with job.stage("figures"):
        for name, picture in figures.draw(
            job.config.plots.figures,
            findings.tree,
            summary=findings.summary,
            pareto_k=findings.loo.pareto_k,
            k_threshold=findings.loo.k_threshold,
        ):
            pictures[name] = figures.png(picture.figure), picture.caption
            run.write(f"figures/{name}.png", pictures[name][0])
    run.write("report.html", page(job, findings, pictures, run.run_id))


def page(job: "Job", findings: "Findings", pictures: dict[str, tuple[bytes, str]], run_id: str) -> str:
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
        command=f"{words.reproduction(run_id)}\n{words.command(job.overrides)}",
        config=_yaml(job.config.resolved()),
        stack={name: str(value) for name, value in job.stack.items() if not isinstance(value, dict | list)},
        commit=job.code.state,
    )


def pointwise(tree: xr.DataTree, loo: "Loo") -> pd.DataFrame:
    """A row a cell: group, exposure, count, multiplicity, elpd (of one of its rows, left out) and pareto_k."""
    constant = tree["constant_data"].to_dataset()
    return pd.DataFrame(
        {
            "group": constant["group"].values[constant["cell_group"].values],
            "exposure": constant["cell_exposure"].values,
            "count": constant["cell_count"].values,
            "multiplicity": constant["cell_multiplicity"].values,
            "elpd": loo.cell_elpd,
            "pareto_k": loo.pareto_k,
        }
    )


def write_tree(tree: xr.DataTree, path: Path) -> None:
    """Write a DataTree as netCDF, whole or not at all; simulated counts compressed, draws as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.part")
    tree.to_netcdf(scratch, engine="netcdf4", encoding={"/posterior_predictive": {"y": {"zlib": True, "complevel": 4}}})
    scratch.replace(path)


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True)


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
