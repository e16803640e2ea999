"""What a logged run left, read back to be judged or made again. Nothing in it is trusted.

A record comes from a tracking server that others write to. Its YAML may hold plain values only: no tags, no aliases,
no interpolations; what the values may be is for `config.check` to say. Nothing is unpickled, and no path in it is
read outside the working directory and the checkout.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import pandas as pd
import yaml

from poolwise import store
from poolwise.config import ROOT
from poolwise.data import Counts, read_counts
from poolwise.errors import DataError, PoolwiseError, RequestError, UnknownRunError
from poolwise.judgement import Facts, Outcome
from poolwise.provenance import versions_of
from poolwise.store import Logged

LARGEST_CONFIG = 1_000_000  # characters
NOT_FITS = "kind"  # the tag of sweeps and comparisons

type Get = Callable[[str], Path | None]  # the name of an artifact -> its file, None if there is none


class ReproductionError(RequestError):
    """A logged run cannot be judged or made again."""


@dataclass(frozen=True)
class Evidence:
    """A run as it was logged.

    Attributes
    ----------
    settings : its resolved config, plain values and not yet checked
    commit, patch : of its code; empty where there was no checkout
    lock : name, sha256 and, if it was not the commit's, text of the lock of its environment
    requirements : `name==version` a line
    """

    run: Logged
    settings: dict[str, Any]
    overrides: tuple[str, ...]
    facts: Facts
    outcome: Outcome
    commit: str
    patch: str
    lock: Mapping[str, str]
    requirements: str
    get: Get

    @property
    def name(self) -> str:
        """What it is called in a sentence."""
        return f"run {self.run.run_id[:6]}"


def of_run(run_id: str, *, uri: str) -> Evidence:
    """A finished fit in a store.

    Raises
    ------
    UnknownRunError
        if the store has no such run.
    ReproductionError
        if it is no finished fit, or its record is not whole.
    """
    run = store.logged(run_id, uri=uri)

    def get(name: str) -> Path | None:
        try:
            return store.artifact(run.run_id, name, uri=uri)
        except UnknownRunError:
            return None

    if kind := run.tags.get(NOT_FITS):
        raise ReproductionError(f"run {run_id} ({run.name}) is a {kind}. Name one of its fits.")
    if run.status != "FINISHED":
        raise ReproductionError(f"run {run_id} ({run.name}) is {run.status}: it has no result to be compared with.")
    return _read(run, get)


def of_folder(folder: Path) -> Evidence:
    """A finished fit in its own folder."""
    told = json.loads((folder / "record.json").read_text())
    params = {key: str(value) for key, value in told["params"].items()}
    run_id = told.get("run_id") or folder.name.rpartition("-")[2]
    run = Logged(run_id, told["name"], told["experiment"], told["status"], params, told["metrics"], told["tags"])

    def get(name: str) -> Path | None:
        path = folder / "artifacts" / name
        return path if path.exists() else None

    return _read(run, get)


def plain_values(text: str) -> Any:
    """What a stored YAML file holds.

    Raises
    ------
    ReproductionError
        if that is anything but plain values.
    """
    if len(text) > LARGEST_CONFIG:
        raise ReproductionError(f"the stored config has {len(text)} characters; none that was logged is so long.")
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise ReproductionError("the stored config has an alias: refused. A run records plain values.")
            if tag := getattr(event, "tag", None):
                raise ReproductionError(f"the stored config has a tag, {tag}: refused. A run records plain values.")
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ReproductionError(f"the stored config is no YAML: {store.first_line(error)}") from None
    except RecursionError:
        raise ReproductionError("the stored config is nested without end: refused.") from None
    for each in _texts(values):
        if "${" in each:
            raise ReproductionError(f"the stored config has an interpolation, {each!r}: refused. A run records values.")
    return values


def counts_of(evidence: Evidence, *, given: str) -> Counts:
    """The counts that the run was fitted to: from a given file, its artifact, or the path it recorded.

    A given file is taken whatever it holds; of the others the first whose counts have the recorded digest.

    Raises
    ------
    ReproductionError
        if there is none.
    """
    asked = evidence.settings.get("data")
    texts = {key: asked.get(key) if isinstance(asked, dict) else None for key in ("path", "group", "count", "name")}
    if not isinstance(asked, dict) or not all(isinstance(each, str) for each in texts.values()):
        raise ReproductionError(f"{evidence.name} does not say which columns of which table it was fitted to.")
    names: dict[str, Any] = {key: asked.get(key) for key in ("group", "count", "exposure", "name")}
    if given:
        return read_counts(given, **names)
    if ".." in PurePath(asked["path"]).parts:
        raise ReproductionError(
            f"data.path of {evidence.name} is {asked['path']}, which leads out of the working folders: refused. "
            "If you trust it, give the table: --data PATH."
        )
    reasons = []
    for where, path in _tables(evidence, asked["path"]):
        try:
            counts = read_counts(path, **names)
        except DataError as error:
            reasons.append(f"{where}: {error}")
            continue
        if counts.sha256 == evidence.facts.data_sha256:
            return counts
        reasons.append(f"{where} has other counts (sha256 {counts.sha256[:12]})")
    told = "; ".join(reasons) or "it logged no table, and its path leads nowhere in the working folders"
    raise ReproductionError(
        f"the data of {evidence.name} (sha256 {evidence.facts.data_sha256[:12]}) cannot be had: {told}. "
        "Give the table: --data PATH."
    )


def _tables(evidence: Evidence, recorded: str) -> Iterator[tuple[str, Path]]:
    """Where the table of a run may be, in words and as a file."""
    if folder := evidence.get("data"):
        yield from (("its artifact", path) for path in sorted(folder.iterdir()) if _is_inside(path, folder))
    for root in (Path.cwd(), ROOT):
        path = root / recorded  # an absolute path stays itself
        if _is_inside(path, root):
            yield str(path), path
            return


def _is_inside(path: Path, root: Path) -> bool:
    """Whether a path is a file that, links followed, lies in a folder."""
    return path.is_file() and path.resolve().is_relative_to(root.resolve())


def _read(run: Logged, get: Get) -> Evidence:
    try:
        return _evidence(run, get)
    except PoolwiseError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise ReproductionError(
            f"the record of run {run.run_id} is damaged ({type(error).__name__}: {store.first_line(error)})."
        ) from None


def _evidence(run: Logged, get: Get) -> Evidence:
    def text(name: str) -> str:
        path = get(name)
        return path.read_bytes().decode("utf-8", "surrogateescape") if path else ""

    def table(name: str) -> dict[str, Any]:
        return dict(json.loads(text(name) or "{}"))

    config = text("config/resolved.yaml")
    if not config:
        raise ReproductionError(f"run {run.run_id} ({run.name}) has no config/resolved.yaml: it is no fit of poolwise.")
    settings = plain_values(config)
    if not isinstance(settings, dict):
        raise ReproductionError(f"the stored config of run {run.run_id} has no sections.")
    commit, ingredients = table("code/commit.json"), table("environment/fingerprint.json")
    requirements = text("environment/requirements.txt")
    return Evidence(
        run=run,
        settings=settings,
        overrides=tuple(str(each) for each in plain_values(text("config/overrides.yaml") or "[]")),
        facts=Facts(
            settings=settings,
            data_sha256=run.tags.get("data_sha256", ""),
            code=str(commit.get("state", run.tags.get("code_state", ""))),
            files=table("code/files.json") or dict(ingredients.get("source", {})),
            libraries=versions_of(requirements),
            stack=table("environment/stack.json"),
        ),
        outcome=Outcome(
            digests=_digests(run, table("posterior/sha256.json")),
            summary=_summary(get("tables/summary.csv"), run),
            elpd_loo=run.metrics.get("elpd_loo", float("nan")),
            elpd_loo_mcse=run.metrics.get("elpd_loo_mcse", float("nan")),
            num_chains=int(run.params["sampler.num_chains"]),
        ),
        commit=str(commit.get("commit", "")),
        patch=text("code/changes.patch"),
        lock={key: str(value) for key, value in table("code/lock.json").items()}
        | {"text": text("environment/requirements.lock")},
        requirements=requirements,
        get=get,
    )


def _digests(run: Logged, recorded: dict[str, Any]) -> dict[str, str]:
    """The hashes of the draws, in which file and tag must agree."""
    tagged = run.tags.get("posterior_sha256", "")
    digests = {str(key): str(value) for key, value in recorded.items()} or {"all": tagged}
    if tagged and digests.get("all") != tagged:
        raise ReproductionError(
            f"the record of run {run.run_id} contradicts itself: its posterior/sha256.json has "
            f"{digests.get('all', '')[:12]}, its tag posterior_sha256 {tagged[:12]}. It was changed after the run."
        )
    return digests


def _summary(path: Path | None, run: Logged) -> pd.DataFrame:
    if path is None:
        raise ReproductionError(f"run {run.run_id} ({run.name}) has no tables/summary.csv to be compared with.")
    return pd.read_csv(path, index_col="parameter", dtype={"parameter": str}, keep_default_na=False, na_values=[""])


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, below in value.items():
            yield from _texts(key)
            yield from _texts(below)
    elif isinstance(value, list):
        for below in value:
            yield from _texts(below)
    elif isinstance(value, str):
        yield value
