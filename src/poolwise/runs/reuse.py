"""Find finished runs to reuse: same run fingerprint, or same draws. Explain near misses.

A run that differs only in having more figures is the same run too, because no figure depends on another. FAILED and
KILLED runs are never reused; suspect runs are, with their verdict.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from poolwise.config import LATER, LATER_OF, renamed, upgraded
from poolwise.errors import UnknownRunError, UnreachableError
from poolwise.inference.engines.base import Fit
from poolwise.provenance.differences import flat, shown, unequal
from poolwise.provenance.fingerprints import fingerprint, posterior_digests
from poolwise.tracking import store
from poolwise.tracking.record import Record
from poolwise.tracking.store import Logged

SETTINGS = ("pooling.", "likelihood.", "prior.", "sampler.", "seed")  # equal in a near miss
TOLD = 3  # differences listed for a near miss


@dataclass(frozen=True)
class StoredDraws:
    """The draws of a finished run."""

    run_id: str
    draws: Fit


def candidates(experiment: str, *, uri: str, draws_fingerprint: str = "") -> list[Logged]:
    """The finished runs of an experiment, newest first; only those with `draws_fingerprint` if given."""
    draws = f"tags.draws_fingerprint = '{draws_fingerprint}' and " if draws_fingerprint else ""
    return store.search(f"{draws}attributes.status = 'FINISHED'", uri=uri, experiments=[experiment])


def finished(record: Record, ingredients: Mapping[str, Any], among: Sequence[Logged]) -> Logged | None:
    """The newest finished run with the same run fingerprint, or with the same but for more figures."""
    same = (run for run in among if run.tags.get("draws_fingerprint") == record.tags["draws_fingerprint"])
    return next((run for run in same if _has_all_of(run, record, ingredients)), None)


def more_figures(twin: Logged, record: Record) -> str:
    """What a finished run has beyond the one that it is reused for, for the end of a sentence; empty if nothing."""
    is_same = twin.tags["run_fingerprint"] == record.tags["run_fingerprint"]
    return "" if is_same else "; it has these figures and more"


def with_same_draws(record: Record, among: Sequence[Logged]) -> Logged | None:
    """The newest finished run with the same draws fingerprint."""
    draws = record.tags["draws_fingerprint"]
    return next((run for run in among if run.tags.get("draws_fingerprint") == draws), None)


def same_draws(record: Record, among: Sequence[Logged], *, uri: str) -> StoredDraws | None:
    """The draws of a finished run with the same draws fingerprint, if their sha256 agrees with its tag."""
    twin = with_same_draws(record, among)
    if twin is None:
        return None
    try:
        path = store.artifact(twin.run_id, "posterior/posterior.nc", uri=uri)
    except (UnknownRunError, UnreachableError):
        return None
    with xr.open_datatree(path, engine="netcdf4") as tree:
        posterior, stats = (_arrays(tree[group].to_dataset()) for group in ("posterior", "sample_stats"))
    if posterior_digests(posterior)["all"] != twin.tags.get("posterior_sha256"):
        return None
    return StoredDraws(twin.run_id, Fit(posterior, stats))


def near_miss(record: Record, ingredients: Mapping[str, Any], among: Sequence[Logged], *, uri: str) -> str:
    """How the newest finished run with the same settings differs from this one, or nothing."""
    for run in among:
        if same_settings(run.params, record.params) and "run_fingerprint" in run.tags:
            try:
                path = store.artifact(run.run_id, "environment/fingerprint.json", uri=uri)
            except (UnknownRunError, UnreachableError):
                continue
            differences = told(json.loads(path.read_text()), ingredients)
            return f"run {run.run_id[:6]} was {differences}" if differences else ""
    return ""


def same_settings(then: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether the parameters of two runs agree in `SETTINGS`, except for the length of chunks."""
    wanted = {key: str(value) for key, value in now.items() if key.startswith(SETTINGS)}
    wanted.pop("sampler.checkpoint_every", None)
    known = upgraded(then)
    return all(key in known and str(known[key]) == value for key, value in wanted.items())


def told(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """How the ingredients of an earlier run differ from those of a new one; lists the first `TOLD`."""
    differences = list(_differences(then, now))
    more = f" and {len(differences) - TOLD} more" if len(differences) > TOLD else ""
    return ", ".join(differences[:TOLD]) + more


def _has_all_of(run: Logged, record: Record, ingredients: Mapping[str, Any]) -> bool:
    """Whether a run is the same, or would be the same if this one had its figures too."""
    if run.tags.get("run_fingerprint") == record.tags["run_fingerprint"]:
        return True
    theirs = re.findall(r"\w+", run.params.get("plots.figures", ""))
    plots = ingredients["plots"]
    with_theirs = {**ingredients, "plots": plots | {"figures": theirs}}
    return set(plots["figures"]) <= set(theirs) and run.tags.get("run_fingerprint") == fingerprint(with_theirs)


def _arrays(dataset: xr.Dataset) -> dict[str, np.ndarray]:
    return {str(name): variable.values for name, variable in dataset.data_vars.items()}


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """One phrase per leaf that differs: `fitted with numpyro 0.22.0, here 0.23.0`."""
    here = flat(now)
    implied = LATER | {key: value for key, (*_, value) in LATER_OF.items()}
    there = {key: value for key, value in implied.items() if key in here} | renamed(flat(then))
    for key, a, b in sorted(unequal(there, here), key=lambda each: each[0]):
        if key.startswith("source.") or key == "all_source":
            yield f"made with another version of {key.removeprefix('source.').replace('all_source', 'the source')}"
        elif key == "data_sha256":
            yield "fitted to other data"
        else:
            yield f"fitted with {key} {shown(a)}, here {shown(b)}"
