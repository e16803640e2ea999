"""The record of a logged run, read back to judge or repeat the run. Its content is not trusted.

A record comes from a tracking server that others write to. Its config may contain plain values only: no interpolations,
no keys that a config library obeys; `config.check` checks the values. Facts that are recorded twice must agree. Nothing
is unpickled, and no path in the record is read outside the working directory and the checkout.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path, PurePath
from typing import Any

import pandas as pd
import yaml

from poolwise.config import LATER, LATER_OF, RENAMED, Config, leaves_of, renamed, upgraded
from poolwise.counts.cells import Counts, read_counts
from poolwise.errors import DataError, PoolwiseError, RequestError, TrackingError, UnknownRunError
from poolwise.paths import ROOT
from poolwise.provenance.differences import RunInputs
from poolwise.provenance.judgement import RunResults
from poolwise.provenance.stack import versions_of
from poolwise.text import one_line
from poolwise.tracking import store
from poolwise.tracking.store import SQLITE, Logged

LARGEST_CONFIG = 100_000  # characters; a config has 1,500
MOST_BRACKETS = 1000  # in YAML; a config has a few
LARGEST_FILE = 50_000_000  # bytes; a patch with a large binary
LONGEST_NAME = 500  # characters that MLflow allows for the name of an experiment
LARGEST = 1e300  # of a number in a config
LONGEST_PARAM = 500  # characters of a parameter that every store keeps
RESERVED = ("hydra", "defaults", "experiments")  # top-level keys that Hydra obeys, or without settings
SECTIONS = tuple(name for name in Config.model_fields if name not in ("seed", "reuse"))  # that hold keys
UPGRADED = {
    key.partition(".")[0] for key in (*RENAMED, *LATER, *LATER_OF)
}  # sections with keys that earlier versions wrote differently
JUDGED = ["mean", "sd", "mcse_mean", "mcse_sd", "ess_bulk", "ess_tail", "r_hat"]  # columns of a summary
# raised by reading a damaged file
DAMAGES = (ArithmeticError, AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError)

type Get = Callable[[str], Path | None]  # the name of an artifact -> its file, None if there is none


class ReproductionError(RequestError):
    """A logged run cannot be judged or repeated."""


@dataclass(frozen=True)
class RecordedRun:
    """A run as it was logged.

    Attributes
    ----------
    settings : its resolved config, plain values, with the keys of its version and not yet checked
    overrides : its command line, with the keys of this version
    commit, patch : of its code; empty if there was no checkout
    lock : name, sha256 and, if it differed from that of the commit, text of the lock of its environment
    requirements : `name==version` per line
    """

    run: Logged
    settings: dict[str, Any]
    overrides: tuple[str, ...]
    facts: RunInputs
    outcome: RunResults
    commit: str
    patch: str
    lock: Mapping[str, str]
    requirements: str
    get: Get

    @property
    def name(self) -> str:
        """Its name in messages."""
        return f"run {self.run.run_id[:6]}"


def of_run(run_id: str, *, uri: str) -> RecordedRun:
    """A finished fit in a store, by its id or a unique beginning of it.

    Raises
    ------
    UnknownRunError
        if the store has no such run.
    ReproductionError
        if the store does not answer, the run is not a finished fit, or its record is incomplete.
    """
    if uri.startswith(SQLITE) and not Path(uri.removeprefix(SQLITE)).is_file():  # connecting would create it
        raise UnknownRunError(f"{uri} does not exist. Check --tracking-uri, or MLFLOW_TRACKING_URI.")

    def get(name: str) -> Path | None:
        try:
            return store.artifact(run.run_id, name, uri=uri)
        except UnknownRunError:
            return None
        except TrackingError as error:
            raise ReproductionError(str(error)) from None

    try:
        run = store.logged(store.run_id_of(run_id, uri=uri), uri=uri)
    except TrackingError as error:
        raise ReproductionError(str(error)) from None
    if not run.is_fit:
        raise ReproductionError(f"{_called(run)} is a {one_line(run.kind)}. Name one of its fits.")
    if run.status != "FINISHED":
        raise ReproductionError(f"{_called(run)} is {run.status}: it has no result to compare with.")
    return _read(run, get)


def of_folder(folder: Path) -> RecordedRun:
    """A finished fit in its own folder.

    Raises
    ------
    ReproductionError
        if its record is incomplete.
    """
    try:
        told = json.loads((folder / "record.json").read_text(encoding="utf-8"))
        params = {key: str(value) for key, value in told["params"].items()}
        run_id = told.get("run_id") or folder.name.rpartition("-")[2]
        run = Logged(run_id, told["name"], told["experiment"], told["status"], params, told["metrics"], told["tags"])
    except DAMAGES as error:
        raise ReproductionError(f"{folder} has no complete run ({type(error).__name__}). Name another run.") from None

    def get(name: str) -> Path | None:
        path = folder / "artifacts" / name
        return path if path.exists() else None

    return _read(run, get)


def as_today(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Recorded settings with the keys of this version."""
    today = dict(settings)
    for name in UPGRADED & settings.keys():
        section = upgraded({f"{name}.{key}": value for key, value in settings[name].items()})
        today[name] = {
            key.removeprefix(f"{name}."): value for key, value in section.items() if key.startswith(f"{name}.")
        }
    return today


def plain_values(text: str, *, what: str, may_interpolate: bool = False) -> Any:
    """The content of a JSON or YAML text.

    Parameters
    ----------
    what : its name in error messages; begins with the name of the file
    may_interpolate : whether a value may contain `${`, which is never resolved

    Raises
    ------
    ReproductionError
        if it contains anything except plain values.
    """
    if len(text) > LARGEST_CONFIG:
        raise ReproductionError(f"{what} has {len(text)} characters: refused. No recorded config is that long.")
    try:
        values = json.loads(text) if ".json" in what else _from_yaml(text, what)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # of YAML; an invalid date, a number too long
        told = getattr(error, "problem", None) or store.first_line(error)
        raise ReproductionError(f"{what} cannot be read: {one_line(told)}. Name another run.") from None
    for each in _parts(values):
        if isinstance(each, str):
            if "${" in each and not may_interpolate:
                raise _refusal(what, f"an interpolation, {each!r}")
            if "\0" in each or any("\ud800" <= letter <= "\udfff" for letter in each):
                raise _refusal(what, f"an invalid string, {each!r}")
        elif isinstance(each, int) and abs(each) >= 2**64:
            raise _refusal(what, "a number of more than 64 bits")
        elif not isinstance(each, bool | int | float | None):
            raise _refusal(what, f"a {type(each).__name__}, {str(each)!r}")
    return values


def counts_of(evidence: RecordedRun, *, given: str) -> Counts:
    """The counts that the run was fitted to: from a given file, its artifact, or its recorded path.

    A given file is used whatever its content; of the others the first whose counts have the recorded digest.

    Raises
    ------
    ReproductionError
        if there is no such file.
    """
    asked = evidence.settings.get("data", {})
    names = {key: asked.get(key) for key in ("group", "count", "exposure", "multiplicity", "name")}
    optional = ("exposure", "multiplicity")
    texts = [asked.get("path"), *(value for key, value in names.items() if key not in optional or value is not None)]
    covariates, reference = asked.get("covariates", []), asked.get("reference", {})
    texts += [*covariates, *reference, *reference.values()]
    if not all(isinstance(each, str) for each in texts):
        raise ReproductionError(f"{evidence.name} did not record the table and columns that it was fitted to.")
    names |= {"covariates": covariates, "reference": reference}
    names["per"] = per = asked.get("per", 1.0)
    if type(per) not in (int, float) or not 0 < per < LARGEST:
        raise ReproductionError(f"data.per of {evidence.name} is {per!r}: refused. It must be a number > 0.")
    if ".." in PurePath(names["name"]).parts or len(names["name"]) > LONGEST_NAME:
        raise ReproductionError(f"data.name of {evidence.name} is {names['name'][:80]!r}: refused. It is not a name.")
    if given:
        return read_counts(given, **names)
    if ".." in PurePath(asked["path"]).parts:
        raise ReproductionError(
            f"data.path of {evidence.name} is {asked['path']!r}, which is outside the working folders: refused. "
            "If you trust it, give the table: --data PATH."
        )
    reasons = []
    for where, path in _tables(evidence, asked["path"]):
        try:
            counts = read_counts(path, **names)
        except DataError as error:
            reasons.append(f"{where}: {one_line(str(error))}")
            continue
        if counts.sha256 == evidence.facts.data_sha256:
            return counts
        reasons.append(f"{where} has other counts (sha256 {counts.sha256[:12]})")
    told = "; ".join(reasons) or "its artifacts have no table, and its path is not a file in the working folders"
    raise ReproductionError(
        f"the data of {evidence.name} (sha256 {evidence.facts.data_sha256[:12]}) is not available: {told}. "
        "Give the table: --data PATH."
    )


def _from_yaml(text: str, what: str) -> Any:
    if text.count("[") + text.count("{") > MOST_BRACKETS:
        raise _refusal(what, f"more than {MOST_BRACKETS} brackets")  # parsing nested ones takes quadratic time
    if any(isinstance(each, yaml.AliasEvent) for each in yaml.parse(text, Loader=yaml.SafeLoader)):
        raise _refusal(what, "an alias")  # a few aliases can expand to billions of values
    return yaml.safe_load(text)


def _refusal(what: str, found: str) -> ReproductionError:
    return ReproductionError(f"{what} contains {found}: refused. A run records plain values only.")


def _parts(value: Any) -> Iterator[Any]:
    """Every key and every leaf."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield key
            yield from _parts(below)
    elif isinstance(value, list):
        for below in value:
            yield from _parts(below)
    else:
        yield value


def _tables(evidence: RecordedRun, recorded: str) -> Iterator[tuple[str, Path]]:
    """Where the table of a run may be, as text and path."""
    folder = evidence.get("data")
    if folder and folder.is_dir():
        yield from (("its artifact", path) for path in sorted(folder.iterdir()) if _is_inside(path, folder))
    for path, root in {root / recorded: root for root in (ROOT, Path.cwd())}.items():  # an absolute path stays as it is
        if _is_inside(path, root):
            yield one_line(str(path)), path


def _is_inside(path: Path, root: Path) -> bool:
    """Whether a path is a file inside a folder, with links resolved."""
    try:
        return path.is_file() and path.resolve().is_relative_to(root.resolve())
    except OSError:  # the path is too long
        return False


def _called(run: Logged) -> str:
    return f"run {run.run_id} ({one_line(run.name)})"


def _read(run: Logged, get: Get) -> RecordedRun:
    try:
        return _evidence(run, get)
    except PoolwiseError:
        raise
    except DAMAGES as error:
        raise ReproductionError(
            f"the record of {_called(run)} is damaged ({type(error).__name__}: {one_line(store.first_line(error))}). "
            "It cannot be judged; name another run."
        ) from None


def _evidence(run: Logged, get: Get) -> RecordedRun:
    def text(name: str) -> str:
        path = get(name)
        if path and path.stat().st_size > LARGEST_FILE:
            raise ReproductionError(f"{name} of {_called(run)} has {path.stat().st_size} bytes: refused.")
        return path.read_bytes().decode("utf-8", "surrogateescape") if path else ""

    def table(name: str) -> dict[str, Any]:
        return dict(json.loads(text(name) or "{}"))

    name = "config/resolved.json" if get("config/resolved.json") else "config/resolved.yaml"  # of an older version
    settings = _settings(run, text(name), name)
    commit, ingredients = table("code/commit.json"), table("environment/fingerprint.json")
    requirements, digests = text("environment/requirements.txt"), table("posterior/sha256.json")
    draws = _agreed(run, "posterior_sha256", digests.get("all"), "posterior/sha256.json")
    return RecordedRun(
        run=run,
        settings=settings,
        overrides=_overrides(run, text("config/overrides.yaml")),
        facts=RunInputs(
            settings=as_today(settings),
            data_sha256=_agreed(run, "data_sha256", ingredients.get("data_sha256"), "environment/fingerprint.json"),
            code=str(commit.get("state") or run.tags.get("code_state", "")),
            files=table("code/files.json") or dict(ingredients.get("source") or {}),
            libraries=versions_of(requirements),
            stack=table("environment/stack.json"),
        ),
        outcome=RunResults(
            digests={str(site): str(digest) for site, digest in digests.items()} | {"all": draws},
            summary=_summary(run, text("tables/summary.csv")),
            elpd_loo=run.metrics.get("elpd_loo", float("nan")),
            elpd_loo_mcse=run.metrics.get("elpd_loo_mcse", float("nan")),
            num_chains=int(settings["sampler"]["num_chains"]),
        ),
        commit=str(commit.get("commit") or ""),
        patch=text("code/changes.patch"),
        lock={key: str(value or "") for key, value in table("code/lock.json").items()}
        | {"text": text("environment/requirements.lock")},
        requirements=requirements,
        get=get,
    )


def _settings(run: Logged, text: str, name: str) -> dict[str, Any]:
    """The resolved config: sections of plain values that agree with the parameters of the run."""
    if not text:
        raise ReproductionError(f"{_called(run)} has no config/resolved.json: it is not a fit of poolwise.")
    what = f"{name} of {_called(run)}"
    settings = plain_values(text, what=what)
    if not isinstance(settings, dict) or not all(isinstance(key, str) for key in settings):
        raise ReproductionError(f"{what} has no sections: refused. A run records its settings by section.")
    leaves = dict(leaves_of(settings))
    for key in leaves:
        if key.partition(".")[0] in RESERVED or re.search(r"(^|\.)_[^.]*_(\.|$)", key):
            raise _refusal(what, f"the key {key!r}, which is not a setting")
    for section in SECTIONS:
        if not isinstance(settings.get(section, {}), dict):
            raise ReproductionError(f"{what} has no keys in {section}: refused. A run records its settings by section.")
    for key, value in leaves.items():
        if key == "device.num_devices":  # of the last start; its parameter is that of the first
            continue
        logged = run.params.get(key, str(value))
        if logged[:LONGEST_PARAM] != str(value)[:LONGEST_PARAM]:
            raise _contradiction(run, f"{key} is {value!r} in {name}, {logged!r} in its parameters")
    return settings


def _overrides(run: Logged, text: str) -> tuple[str, ...]:
    """The command line; interpolations in it are shown and never resolved."""
    what = f"config/overrides.yaml of {_called(run)}"
    overrides = plain_values(text or "[]", what=what, may_interpolate=True)
    if not isinstance(overrides, list) or not all(isinstance(each, str) for each in overrides):
        raise ReproductionError(f"{what} is not a list of strings: refused. A run records its command line.")
    return tuple(map(_override_as_today, overrides))


def _override_as_today(override: str) -> str:
    key, given, value = override.partition("=")
    ((today, choice),) = renamed({key: value}).items()
    return f"{today}{given}{choice}"


def _agreed(run: Logged, tag: str, recorded: Any, file: str) -> str:
    """A digest recorded in a tag and a file; at least one must be present, and both must agree."""
    found = {str(each) for each in (run.tags.get(tag), recorded) if each}
    if len(found) > 1:
        both = f"{run.tags[tag][:12]!r} as a tag, {str(recorded)[:12]!r} in {file}"
        raise _contradiction(run, f"{tag} is {both}")
    if not found:
        raise ReproductionError(f"{_called(run)} recorded no {tag}. It cannot be judged; name another run.")
    return found.pop()


def _contradiction(run: Logged, how: str) -> ReproductionError:
    return ReproductionError(
        f"the record of {_called(run)} contradicts itself: {how}. It was changed after the run; name another run."
    )


def _summary(run: Logged, text: str) -> pd.DataFrame:
    if not text:
        raise ReproductionError(f"{_called(run)} has no tables/summary.csv to compare with. Name another run.")
    table = pd.read_csv(
        StringIO(text),
        index_col="parameter",
        dtype={"parameter": str},
        keep_default_na=False,
        na_values=[""],
    )
    table[JUDGED] = table[JUDGED].astype(float)
    if table.empty or not table.index.is_unique:
        raise ValueError("tables/summary.csv has no rows, or two for one parameter")
    return table
