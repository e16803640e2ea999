"""A run id to a repeated run and a judgement: bit-identical, statistically equal, or different and why.

    run id -> record -> config, counts, code and stack compared with those here -> fit -> judgement

The run is repeated with its own config and data, by the code that is here or, with `--at-commit`, by its own code in
an environment like its own. Current defaults are used only for settings that the run did not have and that decide no
draw; these are reported.

Content of the store is read as plain values; anything else is refused. Only `--at-commit` executes content of the
store: the patch of the run and the distributions of its lock.
"""

import copy
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from poolwise.arguments import fault_of, quoted
from poolwise.config import Config, check
from poolwise.errors import ConfigError, FitError, RequestError, TrackingError
from poolwise.paths import CONF, ROOT, outputs
from poolwise.provenance import judgement, recorded_run
from poolwise.provenance.checkout import checkout
from poolwise.provenance.code import LOCKS
from poolwise.provenance.differences import Difference, differences
from poolwise.provenance.environment import python_of
from poolwise.provenance.fingerprints import is_whole, source_files
from poolwise.provenance.judgement import Judgement, judge
from poolwise.provenance.recorded_run import RESERVED, SECTIONS, RecordedRun, ReproductionError, of_folder, of_run
from poolwise.report.terminal import say
from poolwise.runs import pipeline
from poolwise.runs.job import Job, JudgedFit, facts, prepare, start
from poolwise.text import one_line
from poolwise.tracking import spool, store
from poolwise.tracking.run import Run

MADE_UP = ("checks", "predict", "plots", "tracking", "sweep", "reuse")  # sections that do not decide draws
NOT_CHANGED = {
    "data": "Give another table with --data.",
    "tracking": "Name the store with --tracking-uri.",
    "sweep.dry_run": "Use --against to judge two runs without a fit.",
}
QUIET = [{"override hydra/job_logging": "none"}, {"override hydra/hydra_logging": "none"}, "_self_"]


def against(run_id: str, other_id: str, *, uri: str) -> Judgement:
    """Judge two runs of a store without a fit, and print what differs between them."""
    one, other = (of_run(each, uri=uri) for each in (run_id, other_id))
    names = (f"in {one.run.run_id[:6]}", f"in {other.run.run_id[:6]}")
    differing = differences(one.facts, other.facts, names=names)
    _say(f"{one.run.name} ({one.run.run_id}) and {other.run.name} ({other.run.run_id})", *_listed(differing))
    found = judge(one.outcome, other.outcome, differing, names=names)
    _say(*judgement.lines(found, names=names))
    return found


def reproduce(
    run_id: str, *, uri: str, data: str = "", changes: Sequence[str] = (), at_commit: bool = False
) -> Judgement:
    """Repeat a logged run, judge it, and log both the repeated run and the judgement.

    Parameters
    ----------
    data : the table; by default the one that the run logged, or its path if that is inside the working folders
    changes : settings to change, `key=value`
    at_commit : use the code that the run recorded, in an environment like its own

    Raises
    ------
    ReproductionError, and other RequestErrors
        if the run cannot be repeated.
    FitError
        if the repeated run gave no draws.
    """
    original = of_run(run_id, uri=uri)
    settings = _changed(original.settings if at_commit else recorded_run.as_today(original.settings), changes)
    if data:
        settings["data"] = settings.get("data", {}) | {"path": data}
    again = _at_commit if at_commit else _here
    found = again(original, settings, changes, data, uri=uri)
    tags, _, _ = _told(found, original)
    _mark(original.run.run_id, tags, {}, uri=uri)
    return found


def _here(original: RecordedRun, settings: dict[str, Any], changes: Sequence[str], data: str, *, uri: str) -> Judgement:
    """Repeat the run with the code that is here."""
    config = _checked(settings, original)
    counts = recorded_run.counts_of(original, given=data)
    job = prepare(config, (*original.overrides, *changes), counts=counts)
    job = start(replace(job, uri=uri, reproduces=original.run.run_id))
    differing = differences(original.facts, facts(job))
    _say(f"reproducing {original.run.name} ({original.run.run_id})", *_listed(differing))
    judged: list[Judgement] = []

    def write(job: Job, findings: JudgedFit, logged: Run) -> None:
        judged.append(judge(original.outcome, findings.outcome, differing))
        tags, files, note = _told(judged[0], original)
        logged.record.tags |= tags
        logged.record.note = note + logged.record.note
        for name, content in files.items():
            logged.write(name, content)

    try:
        pipeline.carry_out(job, also=write)
    except TrackingError as error:
        if not judged:
            raise ReproductionError(str(error)) from None
        raise
    finally:
        for found in judged:
            _say(*judgement.lines(found))
    return judged[0]


def _at_commit(
    original: RecordedRun, settings: dict[str, Any], changes: Sequence[str], data: str, *, uri: str
) -> Judgement:
    """Repeat the run with its own code, in a separate checkout and environment."""
    if not original.commit:
        state = one_line(original.facts.code) or "nothing about its code"
        raise ReproductionError(f"{original.name} recorded no commit ({state}). Leave out --at-commit.")
    if foreign := sorted(settings.keys() - Config.model_fields.keys()):
        raise ReproductionError(
            f"the config of {original.name} has {', '.join(map(one_line, foreign))}, which no version known here has: "
            "refused. Run this command in a checkout of its version, without --at-commit."
        )
    counts = recorded_run.counts_of(original, given=data)
    handed = _handed_over(settings, Path(counts.path).absolute())
    with checkout(ROOT, original.commit, original.patch) as code:
        _check_code(original, code)
        python = python_of(
            original.requirements,
            lock=_lock(original, code),
            python=str(original.facts.stack.get("python", "")),
            folder=outputs() / "environments",
        )
        patched = " and its patch" if original.patch else ""
        _say(
            f"reproducing {original.run.name} ({original.run.run_id})",
            f"with its own code, commit {original.commit[:12]}{patched}, in the environment of {python}",
        )
        folder = _run_there(code, python, settings | handed, uri)
    rerun = of_folder(folder)
    asked = {key: settings[key] for key in handed}  # the values handed over instead are those of this machine
    differing = differences(original.facts, replace(rerun.facts, settings={**rerun.facts.settings, **asked}))
    found = judge(original.outcome, rerun.outcome, differing)
    _log_afterwards(found, original, rerun, folder, uri=uri)
    _say(*judgement.lines(found))
    return found


def _handed_over(settings: Mapping[str, Any], table: Path) -> dict[str, Any]:
    """The settings that must change in another process: the path of the table, the store, no reuse."""
    handed: dict[str, Any] = {"data": settings["data"] | {"path": str(table)}}
    if "tracking" in settings:
        handed["tracking"] = settings["tracking"] | {"uri": None}  # passed in MLFLOW_TRACKING_URI
    if "reuse" in settings:
        handed["reuse"] = False
    return handed


def _run_there(code: Path, python: Path, settings: Mapping[str, Any], uri: str) -> Path:
    """Call `poolwise.run` of a checkout with these settings as its config; returns the folder of the run."""
    ours = {"run": {"dir": str(outputs())}, "output_subdir": None}
    with tempfile.TemporaryDirectory() as scratch:
        # JSON is YAML with all strings quoted: a column named 1e3 stays a string
        content = json.dumps({"defaults": QUIET, **settings, "hydra": ours}, ensure_ascii=False)
        (Path(scratch) / "reproduced.yaml").write_text(content, encoding="utf-8")
        command = [str(python), "-m", "poolwise.run", "--config-path", scratch, "--config-name", "reproduced"]
        environment = os.environ | {
            "PYTHONPATH": str(code / "src"),
            "POOLWISE_OUTPUTS": str(outputs()),
            "MLFLOW_TRACKING_URI": uri,
        }
        folder = ""
        with subprocess.Popen(command, cwd=code, env=environment, stdout=subprocess.PIPE, text=True) as process:
            try:
                for line in process.stdout or ():
                    say(line.rstrip("\n"))
                    if found := re.fullmatch(r"folder  (.+)", line.rstrip("\n")):
                        folder = found[1]
            except BaseException as error:  # stopping this process stops the other; Ctrl-C reaches both
                if not isinstance(error, KeyboardInterrupt):
                    process.terminate()
                process.wait()
                raise
    if process.returncode == RequestError.exit_code:
        raise ReproductionError("the run's own code refuses its config here; see its messages above.")
    if process.returncode or not folder:
        raise FitError("the run's own code ended without a result; see its messages above.")
    return Path(folder)


def _check_code(original: RecordedRun, code: Path) -> None:
    """Refuse a checkout that differs from the code that ran."""
    wanted, given = original.facts.files, source_files(code / "src" / "poolwise")
    wrong = [
        name for name in sorted({*wanted, *(given if is_whole(wanted) else ())}) if given.get(name) != wanted.get(name)
    ]
    if wrong:
        raise ReproductionError(
            f"commit {original.commit[:12]} with the patch of {original.name} does not restore its code: "
            f"{', '.join(map(one_line, wrong[:5]))} {'differs' if len(wrong) == 1 else 'differ'} "
            f"({one_line(original.facts.code)}). Leave out --at-commit."
        )


def _lock(original: RecordedRun, code: Path) -> bytes:
    """The lock of the run's environment: its recorded text, or that of its commit; empty if there is none."""
    recorded = original.lock
    name = recorded.get("name") or LOCKS[0]
    if name not in LOCKS:
        raise ReproductionError(f"the lock of {original.name} is {name!r}: refused. It must be {' or '.join(LOCKS)}.")
    content = recorded["text"].encode("utf-8", "surrogateescape")
    if not content and (code / name).is_file():
        content = (code / name).read_bytes()
    if recorded.get("sha256") and recorded["sha256"] != hashlib.sha256(content).hexdigest():
        raise ReproductionError(
            f"the lock of {original.name} is not available: neither its record nor commit {original.commit[:12]} has "
            f"{name} with sha256 {recorded['sha256'][:12]!r}. Leave out --at-commit."
        )
    return content


def _log_afterwards(found: Judgement, original: RecordedRun, rerun: RecordedRun, folder: Path, *, uri: str) -> None:
    """Add the judgement to a run that another process made, in the store or the spool."""
    told = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    place = spool.place(uri, outputs()) if spool.target(told.get("store", "")) else uri
    tags, files, note = _told(found, original)
    tags |= {"reproduces": original.run.run_id, "mlflow.source.name": "poolwise.reproduce"}
    tags |= {"mlflow.runName": f"{original.run.name} again"}
    tags |= {"mlflow.note.content": note + told.get("note", "")}
    _mark(rerun.run.run_id, tags, files, uri=place)


def _mark(run_id: str, tags: Mapping[str, str], files: Mapping[str, str], *, uri: str) -> None:
    """Add the judgement to a run that has ended; a store that takes none ends nothing."""
    try:
        store.attach(run_id, tags, files, uri=uri)
    except store.OUTAGES as error:
        print(f"tracking: judgement not logged to run {run_id}: {one_line(store.reason(error))}", file=sys.stderr)


def _told(found: Judgement, original: RecordedRun) -> tuple[dict[str, str], dict[str, str], str]:
    """A judgement as tags, artifacts and the beginning of a note."""
    quantities = {"quantity": found.quantity, "z": found.z, "threshold": found.threshold}
    told = {"reproduces": original.run.run_id, "verdict": found.verdict, "cause": found.cause}
    tags = {"reproduction": found.verdict, "reproduction_cause": found.cause or "none"}
    files = {
        "reproduction/judgement.json": json.dumps(told | quantities | {"remarks": found.remarks}, indent=1) + "\n",
        "reproduction/shifts.csv": found.shifts.to_csv(index=False),
    }
    note = "\n".join(judgement.lines(found))
    return tags, files, f"reproduces run {original.run.run_id}\n\n```\n{note}\n```\n\n"


def _changed(settings: Mapping[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """The settings with some leaves changed."""
    changed = copy.deepcopy(dict(settings))
    changes = [quoted(each) for each in changes]
    if faults := list(filter(None, map(fault_of, changes))):
        raise ConfigError("\n".join(faults))
    parsed = OverridesParser.create().parse_overrides(changes)
    for each in parsed:
        key, told = each.get_key_element(), each.input_line or ""
        section = re.split("[./]", key)[0]
        if remedy := NOT_CHANGED.get(section) or NOT_CHANGED.get(key):
            raise ConfigError(f"{told} cannot be changed here. {remedy}")
        if section in RESERVED:
            raise ConfigError(f"{told} is not a setting of a run. Change <section>.<key>=<value>.")
        if key in SECTIONS or "/" in key:
            raise ConfigError(
                f"{told} is a choice of the current config, not of the run's. "
                f"Change single keys: {section}.<key>=<value>."
            )
        if key.startswith(("+", "~")) or each.is_sweep_override():
            raise ConfigError(f"{told} does not change one setting to one value; write <key>=<value>.")
        *sections, leaf = key.split(".")
        place = changed
        for name in sections:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                raise ConfigError(f"unknown key {key}. {name} has a value and no keys.")
        place[leaf] = each.value()
    return changed


def _checked(settings: Mapping[str, Any], original: RecordedRun) -> Config:
    """Check the run's settings like any config; sections that decide no draw get their missing keys."""
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        defaults: Any = OmegaConf.to_container(OmegaConf.masked_copy(compose("config"), list(MADE_UP)))
    whole, made_up = dict(settings), dict[str, Any]()
    for section, default in defaults.items():
        if isinstance(default, dict):
            missing = {key: value for key, value in default.items() if key not in settings.get(section, {})}
            made_up |= {f"{section}.{key}": value for key, value in missing.items()}
            whole[section] = settings.get(section, {}) | missing
        elif section not in settings:
            made_up[section] = whole[section] = default
    try:
        config = check(whole)
        recorded = config.leaves()  # what a run of this version would have recorded
        if told := ", ".join(f"{key}={json.dumps(value)}" for key, value in made_up.items() if key in recorded):
            say(f"{original.name} did not record {told}: current defaults used, as they decide no draw")
        if unused := sorted(whole["prior"].keys() - config.prior.keys()):
            variant = f"{config.pooling.name} {config.likelihood.name}"
            raise ConfigError("\n".join(f"prior.{site} is not used by the {variant} model." for site in unused))
    except ConfigError as error:
        faults = "\n".join(map(one_line, str(error).splitlines()))
        raise ConfigError(
            f"{faults}\n{original.name} cannot be repeated here with these settings. If another version logged it, "
            "--at-commit repeats it with that version."
        ) from None
    return config


def _listed(differing: Sequence[Difference]) -> list[str]:
    """The differences, one per line; those that decide draws are marked."""
    if not differing:
        return ["no recorded input differs"]
    return [f"  {'*' if each.decides_draws else ' '} {each}" for each in differing] + [
        "  (* decides draws)" if any(each.decides_draws for each in differing) else "  (none of these decides a draw)"
    ]


def _say(*lines: str) -> None:
    """Print lines with content of the store: its control sequences do not reach the terminal."""
    say(*map(one_line, lines))
