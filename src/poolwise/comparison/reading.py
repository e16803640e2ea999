"""Logged runs to what a comparison needs of them: candidates to rank, members of figures."""

from collections.abc import Collection, Sequence
from pathlib import Path

import pandas as pd
import xarray as xr

from poolwise.comparison.candidates import Candidate, read_groups_out, read_pointwise
from poolwise.comparison.figures import MAX_MODELS, Member
from poolwise.comparison.models import NOT_CHECKED
from poolwise.config import upgraded
from poolwise.errors import UnknownRunError
from poolwise.model.likelihoods import LIKELIHOODS
from poolwise.model.poolings import POOLINGS, pooling_of
from poolwise.text import listed
from poolwise.tracking import store
from poolwise.tracking.store import Logged

TREE_GROUPS = ("observed_data", "constant_data", "posterior_predictive")  # of a stored tree


def candidates_of(runs: Sequence[Logged], *, uri: str) -> tuple[list[Candidate], list[str]]:
    """The comparable runs, and why the others are not comparable."""
    candidates, reasons = list[Candidate](), list[str]()
    for run in {each.run_id: each for each in runs}.values():
        if not run.is_fit:
            reasons.append(f"{run.name} ({run.run_id}) is a {run.kind}")
        elif run.status != "FINISHED":
            reasons.append(f"{run.name} ({run.run_id}) is {run.status}")
        elif (pointwise := _artifact(run, "loo/pointwise.csv", uri=uri)) is None:
            reasons.append(f"{run.name} ({run.run_id}) has no loo/pointwise.csv")
        else:
            candidates.append(_candidate(run, pointwise, uri=uri))
    return candidates, reasons


def _artifact(run: Logged, name: str, *, uri: str) -> Path | None:
    try:
        return store.artifact(run.run_id, name, uri=uri)
    except UnknownRunError:
        return None


def _candidate(run: Logged, pointwise: Path, *, uri: str) -> Candidate:
    is_left_out = "elpd_leave_group_out" in run.metrics
    groups_out = _artifact(run, "tables/leave_group_out.csv", uri=uri) if is_left_out else None
    return Candidate(
        run_id=run.run_id,
        name=run.name,
        data_sha256=run.tags.get("data_sha256", ""),
        posterior_sha256=run.tags.get("posterior_sha256", ""),
        verdict=run.tags.get("verdict", "unknown"),
        model_check=run.tags.get("model_check", NOT_CHECKED),
        model_check_reasons=run.tags.get("model_check_reasons", ""),
        params=upgraded(run.params),
        mcse=run.metrics.get("elpd_loo_mcse", float("nan")),
        p_loo=run.metrics.get("p_loo", float("nan")),
        k_max=run.metrics.get("pareto_k_max", float("nan")),
        k_bad=run.metrics.get("pareto_k_bad", float("nan")),
        pointwise=read_pointwise(pointwise),
        groups_out=read_groups_out(groups_out) if groups_out else None,
    )


def members_of(runs: Sequence[Logged], *, uri: str) -> tuple[dict[str, Member], list[str]]:
    """The inputs of the figures by run id, for runs best first, and why the others have none."""
    members, reasons = dict[str, Member](), list[str]()
    for place, run in enumerate(runs):
        if reason := _unknown(run):
            reasons.append(f"{run.name} ({run.run_id}), because {reason}")
            continue
        try:
            members[run.run_id] = _member(run, with_draws=place < MAX_MODELS, uri=uri)
        except UnknownRunError as error:
            reasons.append(f"{run.name} ({run.run_id}), because {error}")
    return members, reasons


def _unknown(run: Logged) -> str:
    """What this version does not know of a run's model, or nothing."""
    known: dict[str, Collection[str]] = {"pooling.name": POOLINGS, "likelihood.name": LIKELIHOODS}
    unknown = [f"{key}={run.params.get(key)}" for key, names in known.items() if run.params.get(key) not in names]
    return f"this version does not know {listed(unknown)}" if unknown else ""


def _member(run: Logged, *, with_draws: bool, uri: str) -> Member:
    """The inputs of the figures for a run; without stored draws the run is still in figures that need none."""
    summary = store.artifact(run.run_id, "tables/summary.csv", uri=uri)
    new_group = _artifact(run, "tables/new_group.csv", uri=uri)
    draws = _artifact(run, "posterior/posterior.nc", uri=uri) if with_draws else None
    return Member(
        pooling=pooling_of(run.params["pooling.name"], run.params.get("pooling.population")),
        likelihood=run.params["likelihood.name"],
        summary=pd.read_csv(summary, index_col="parameter", dtype={"parameter": str}),
        new_group=pd.read_csv(new_group) if new_group else pd.DataFrame(),
        tree=_tree(draws) if draws else None,
    )


def _tree(path: Path) -> xr.DataTree | None:
    """The data and simulated counts of a stored fit, if it has them."""
    with xr.open_datatree(path, engine="netcdf4") as stored:
        if "posterior_predictive" not in stored:
            return None
        return xr.DataTree.from_dict({name: stored[name].to_dataset().load() for name in TREE_GROUPS})
