"""A run id to the same run again, and a judgement: bit-identical, statistically equal, or different and why.

    run id -> evidence -> config, counts, code and stack held against what is here -> the fit -> judgement

The run is made with its own config and its own data, by the code that is here or, with `--at-commit`, by its own code
in an environment like its own. Nothing is taken from today's defaults but for settings that the run did not have yet,
if they decide no draw; such are named.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from poolwise import evidence, judgement, pipeline, spool, store
from poolwise.checkout import checkout
from poolwise.config import CONF, ROOT, Config, check, outputs, register_resolvers
from poolwise.credentials import given_uri, store_uri
from poolwise.environment import python_of
from poolwise.errors import ConfigError, FitError, RequestError, TrackingError
from poolwise.evidence import Evidence, ReproductionError, of_folder, of_run
from poolwise.judgement import DIFFERENT, Judgement, differences, judge
from poolwise.provenance import source_files
from poolwise.run import exit_codes
from poolwise.terminal import say
from poolwise.tracking import Run

MADE_UP = ("checks", "predict", "plots", "tracking", "sweep", "reuse")  # sections that decide no draw


def cli() -> None:
    """The console command `poolwise-reproduce`; exit code 0 same, 1 different, 2 cannot be tried."""
    parser = argparse.ArgumentParser(prog="python -m poolwise.reproduce", description=__doc__)
    parser.add_argument("run", metavar="RUN_ID", help="the run to make again")
    parser.add_argument("changes", nargs="*", metavar="KEY=VALUE", help="settings to change, e.g. device.num_devices=4")
    parser.add_argument("--against", metavar="RUN_ID", help="fit nothing: why do these two runs differ?")
    parser.add_argument(
        "--at-commit", action="store_true", help="with the run's own code, in an environment of its lock"
    )
    parser.add_argument("--data", metavar="PATH", help="the table, if the run did not log it")
    parser.add_argument("--tracking-uri", metavar="URI", help="the store; default: MLFLOW_TRACKING_URI, else outputs/")
    asked = parser.parse_args()
    if asked.against and (asked.changes or asked.at_commit or asked.data):
        parser.error("--against fits nothing: it goes with two run ids and --tracking-uri alone")
    register_resolvers()
    with exit_codes():
        uri = store_uri(given_uri(asked.tracking_uri), outputs())
        if asked.against:
            found = against(asked.run, asked.against, uri=uri)
        else:
            found = reproduce(
                asked.run, uri=uri, data=asked.data or "", changes=asked.changes, at_commit=asked.at_commit
            )
        sys.exit(found.verdict == DIFFERENT)


def against(run_id: str, other_id: str, *, uri: str) -> Judgement:
    """Judge two runs of a store, without a fit, and print what differs between them."""
    one, other = (_evidence(each, uri=uri) for each in (run_id, other_id))
    names = (f"in {one.run.run_id[:6]}", f"in {other.run.run_id[:6]}")
    differing = differences(one.facts, other.facts, names=names)
    say(f"{one.run.name} ({one.run.run_id}) and {other.run.name} ({other.run.run_id})", *_listed(differing))
    found = judge(one.outcome, other.outcome, differing, names=names)
    say(*judgement.lines(found, names=names))
    return found


def reproduce(
    run_id: str, *, uri: str, data: str = "", changes: Sequence[str] = (), at_commit: bool = False
) -> Judgement:
    """Make a logged run again, judge it, and log both the re-run and the judgement.

    Parameters
    ----------
    data : the table; by default the one that the run logged, or its path if that leads into the working folders
    changes : settings to change, `key=value`
    at_commit : with the code that the run recorded, in an environment like its own

    Raises
    ------
    ReproductionError, and other RequestErrors
        if it cannot be tried.
    FitError
        if it was tried and no draws came of it.
    """
    original = _evidence(run_id, uri=uri)
    settings = _changed(original.settings, changes)
    if data:
        settings["data"] = {**settings.get("data", {}), "path": data}
    again = _at_commit if at_commit else _here
    found = again(original, settings, changes, data, uri=uri)
    with suppress(*store.OUTAGES):  # the re-run holds the judgement; the original is marked if it can be
        store.tag(run_id, "reproduction", found.verdict, uri=uri)
    return found


def _here(original: Evidence, settings: dict[str, Any], changes: Sequence[str], data: str, *, uri: str) -> Judgement:
    """Make the run again with the code that is here."""
    config = _checked(settings, original)
    counts = evidence.counts_of(original, given=data)
    job = pipeline.prepare(config, (*original.overrides, *changes), counts=counts)
    job = pipeline.start(replace(job, uri=uri, reproduces=original.run.run_id))
    differing = differences(original.facts, pipeline.facts(job))
    say(f"reproducing {original.run.name} ({original.run.run_id})", *_listed(differing))
    judged: list[Judgement] = []

    def write(job: pipeline.Job, findings: pipeline.Findings, logged: Run) -> None:
        judged.append(judge(original.outcome, findings.outcome, differing))
        tags, files, note = _told(judged[0], original)
        logged.record.tags |= tags
        logged.record.note = note + logged.record.note
        for name, content in files.items():
            logged.write(name, content)

    pipeline.carry_out(job, also=write)
    say(*judgement.lines(judged[0]))
    return judged[0]


def _at_commit(
    original: Evidence, settings: dict[str, Any], changes: Sequence[str], data: str, *, uri: str
) -> Judgement:
    """Make the run again with its own code, in a checkout and an environment of their own."""
    if not original.commit:
        raise ReproductionError(f"{original.name} recorded no commit ({original.facts.code}). Leave out --at-commit.")
    counts = evidence.counts_of(original, given=data)
    own = {"data": settings["data"] | {"path": str(Path(counts.path).absolute())}, "reuse": False}
    settings = settings | own | {"tracking": settings.get("tracking", {}) | {"uri": None}}
    with checkout(ROOT, original.commit, original.patch) as code:
        _check_code(original, code)
        python = python_of(
            original.requirements,
            lock=_lock(original, code),
            python=str(original.facts.stack.get("python", "")),
            folder=outputs() / "environments",
        )
        say(
            f"reproducing {original.run.name} ({original.run.run_id}) with its own code: commit {original.commit}"
            + (" and its patch" if original.patch else ""),
            f"in the environment of {python}",
        )
        folder = _run_there(code, python, settings, uri)
    rerun = of_folder(folder)
    differing = differences(original.facts, rerun.facts)
    found = judge(original.outcome, rerun.outcome, differing)
    _log_afterwards(found, original, rerun, folder, uri=uri)
    say(*_listed(differing), *judgement.lines(found))
    return found


def _run_there(code: Path, python: Path, settings: dict[str, Any], uri: str) -> Path:
    """Call `poolwise.run` of a checkout with these settings as its whole config; returns the folder of the run."""
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "reproduced.yaml").write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8")
        command = [
            *(str(python), "-m", "poolwise.run", "--config-path", scratch, "--config-name", "reproduced"),
            *("hydra/job_logging=none", "hydra/hydra_logging=none", "hydra.output_subdir=null"),
            f"hydra.run.dir={outputs()}",
        ]
        environment = os.environ | {
            "PYTHONPATH": str(code / "src"),
            "POOLWISE_OUTPUTS": str(outputs()),
            "MLFLOW_TRACKING_URI": uri,
        }
        folder = ""
        with subprocess.Popen(command, cwd=code, env=environment, stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout or ():
                say(line.rstrip("\n"))
                if found := re.fullmatch(r"folder  (.+)", line.rstrip("\n")):
                    folder = found[1]
    if process.returncode == RequestError.exit_code:
        raise ReproductionError("the run's own code refuses its config here; what it said is above.")
    if process.returncode or not folder:
        raise FitError("the run's own code ended without a result; what it said is above.")
    return Path(folder)


def _check_code(original: Evidence, code: Path) -> None:
    """Refuse a checkout that is not the code that ran."""
    wanted, given = original.facts.files, source_files(code / "src" / "poolwise")
    wrong = sorted(name for name, digest in wanted.items() if given.get(name) != digest)
    if wrong:
        raise ReproductionError(
            f"commit {original.commit[:12]} with the patch of {original.name} does not give its code back: "
            f"{', '.join(wrong[:5])} differ ({original.facts.code}). Leave out --at-commit."
        )


def _lock(original: Evidence, code: Path) -> bytes:
    """The lock of the run's environment: its own text, or the one of its commit."""
    if original.lock["text"]:
        return original.lock["text"].encode("utf-8", "surrogateescape")
    path = code / (original.lock.get("name") or "requirements.lock")
    if not path.resolve().is_relative_to(code.resolve()) or not path.is_file():
        raise ReproductionError(f"commit {original.commit[:12]} has no {path.name} to make an environment from.")
    return path.read_bytes()


def _log_afterwards(found: Judgement, original: Evidence, rerun: Evidence, folder: Path, *, uri: str) -> None:
    """Mark a run that another process made, wherever it is."""
    told = json.loads((folder / "record.json").read_text())
    place = spool.place(uri, outputs()) if spool.target(told.get("store", "")) else uri
    tags, files, note = _told(found, original)
    tags |= {"reproduces": original.run.run_id, "mlflow.source.name": "poolwise.reproduce"}
    tags |= {"mlflow.runName": f"{original.run.name} again"}
    tags |= {"mlflow.note.content": note + told.get("note", "")}
    with suppress(*store.OUTAGES):
        store.attach(rerun.run.run_id, tags, files, uri=place)


def _told(found: Judgement, original: Evidence) -> tuple[dict[str, str], dict[str, str], str]:
    """A judgement as tags, artifacts and the head of a note."""
    quantities = {"quantity": found.quantity, "z": found.z, "threshold": found.threshold}
    told = {"reproduces": original.run.run_id, "verdict": found.verdict, "cause": found.cause}
    tags = {"reproduction": found.verdict, "reproduction_cause": found.cause or "none"}
    files = {
        "reproduction/judgement.json": json.dumps(told | quantities | {"remarks": found.remarks}, indent=1) + "\n",
        "reproduction/shifts.csv": found.shifts.to_csv(index=False),
    }
    note = "\n".join(judgement.lines(found))
    return tags, files, f"reproduces run {original.run.run_id}\n\n```\n{note}\n```\n\n"


def _evidence(run_id: str, *, uri: str) -> Evidence:
    try:
        return of_run(run_id, uri=uri)
    except TrackingError as error:
        raise ReproductionError(str(error)) from None


def _changed(settings: dict[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """The settings with some leaves changed."""
    changed: dict[str, Any] = json.loads(json.dumps(settings))
    for each in changes:
        key, found, text = each.partition("=")
        *sections, leaf = key.split(".")
        place = changed
        for section in sections:
            below = place.setdefault(section, {})
            if not isinstance(below, dict):
                raise ConfigError(f"{key} is no key: {section} holds a value.")
            place = below
        if not found:
            raise ConfigError(f"{each} changes nothing; write key=value.")
        place[leaf] = evidence.plain_values(text)
    return changed


def _checked(settings: dict[str, Any], original: Evidence) -> Config:
    """The run's settings, checked as any config is; sections that decide no draw get the keys they did not have."""
    made_up: dict[str, Any] = {}
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        defaults: Any = OmegaConf.to_container(OmegaConf.masked_copy(compose("config"), list(MADE_UP)))
    for section in MADE_UP:
        default, own = defaults[section], settings.get(section)
        if isinstance(default, dict) and isinstance(own, dict | None):
            missing = {key: value for key, value in default.items() if key not in (own or {})}
            made_up |= {f"{section}.{key}": value for key, value in missing.items()}
            settings = settings | {section: (own or {}) | missing}
        elif section not in settings:
            made_up[section], settings = default, settings | {section: default}
    for key, value in made_up.items():
        say(f"{original.name} has no {key}, which decides no draw: {value} is taken")
    try:
        return check(settings)
    except ConfigError as error:
        raise ConfigError(
            f"{error}\nso the config of {original.name} cannot be used here. If another version logged it, --at-commit "
            "makes it again with that version."
        ) from None


def _listed(differing: Sequence[judgement.Difference]) -> list[str]:
    """What differs, a line each, what decides draws marked."""
    if not differing:
        return ["nothing that is recorded differs"]
    return [f"  {'*' if each.decides_draws else ' '} {each}" for each in differing] + [
        "  (* decides draws)" if any(each.decides_draws for each in differing) else "  (none of it decides a draw)"
    ]


if __name__ == "__main__":
    cli()
