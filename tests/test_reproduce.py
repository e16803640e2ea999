"""A run id to the same run again: what is judged, logged and said, what is refused, and how the command ends."""

import base64
import copy
import json
import os
import platform
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from hydra import compose, initialize_config_dir
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag

from poolwise.config import check
from poolwise.errors import FitError, TrackingError
from poolwise.paths import CONF, outputs, register_resolvers
from poolwise.provenance import environment
from poolwise.runs import job as job_module
from poolwise.runs import pipeline, rerun
from poolwise.tracking import store
from poolwise.tracking.credentials import store_uri
from support import ROOT, called, params_of

TINY = ("sampler.num_warmup=300", "sampler.num_samples=400", "plots=none")
IN_PROCESS = (*TINY, "device.num_devices=1")  # as many as `called` uses


@dataclass(frozen=True)
class Ended:
    """How the command ended: exit code, what it printed, and the runs that it made."""

    code: int
    out: str
    err: str
    made: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """The line of the judgement."""
        return next(line for line in self.out.splitlines() if line.startswith(("bit-", "statist", "different")))

    @property
    def cause(self) -> str:
        """The line of the cause, or nothing."""
        return next((line.partition("cause: ")[2] for line in self.out.splitlines() if "cause: " in line), "")


# In this process: one store, one run in it, and others forged from it.


@pytest.fixture(scope="module")
def place(migrated_store, tmp_path_factory) -> Iterator[Path]:
    """The outputs of all tests here that start no process; the working directory is empty and beside them."""
    folder = tmp_path_factory.mktemp("reproduce")
    shutil.copytree(migrated_store, folder / "outputs")
    (folder / "working").mkdir()
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("POOLWISE_OUTPUTS", str(folder / "outputs"))
        patched.chdir(folder / "working")
        yield folder / "outputs"


@pytest.fixture(scope="module")
def uri(place) -> str:
    return f"sqlite:///{place}/mlflow.db"


@pytest.fixture(scope="module")
def client(uri) -> MlflowClient:
    return store.connect(uri)


def fit(*overrides: str) -> str:
    """`python -m poolwise.run`, in this process; returns the run id."""
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = check(compose("config", overrides=[*IN_PROCESS, *overrides]))
    job = job_module.prepare(config, (*IN_PROCESS, *overrides))
    return pipeline.carry_out(replace(job, uri=store_uri(None, outputs()))).run_id


@pytest.fixture(scope="module")
def original(place) -> str:
    """A run that reproduces."""
    return fit()


@pytest.fixture
def forge(client, original) -> Callable[..., str]:
    """`forge(settings, {"code/files.json": None})`: a run as anybody may put it into a store, with its parameters.

    All but what is given is the original's.
    """

    def make(
        settings: Any = None,
        files: dict[str, str | None] | None = None,
        *,
        tags: dict[str, str] | None = None,
        status: str = "FINISHED",
        name: str = "hier-pois",
    ) -> str:
        source = client.get_run(original)
        run = client.create_run(source.info.experiment_id, run_name=name)
        artifacts = shutil.copytree(
            folder_of(source), folder_of(run), ignore=lambda *_: {"posterior.nc", "report.html"}
        )
        params = source.data.params
        if settings is not None:
            text = settings if isinstance(settings, str) else yaml.safe_dump(settings, sort_keys=False)
            params = params_of(settings) if isinstance(settings, dict) else {}
            (artifacts / "config/resolved.json").unlink()  # as a run of an older version
            (artifacts / "config/resolved.yaml").write_text(text)
        for path, content in (files or {}).items():
            if content is None:
                (artifacts / path).unlink()
            else:
                (artifacts / path).write_text(content)
        kept = {key: value for key, value in source.data.tags.items() if not key.startswith(("mlflow.", "reproduc"))}
        client.log_batch(
            run.info.run_id,
            params=[Param(key, value) for key, value in params.items() if re.fullmatch(r"[\w.]+", key)],
            metrics=[Metric(key, source.data.metrics[key], 0, 0) for key in ("elpd_loo", "elpd_loo_mcse")],
            tags=[RunTag(key, value) for key, value in (kept | (tags or {})).items() if value],
        )
        client.set_terminated(run.info.run_id, status)
        return run.info.run_id

    return make


@pytest.fixture
def settings(client, original) -> dict[str, Any]:
    """The config of the original, to be changed."""
    return yaml.safe_load((folder_of(client.get_run(original)) / "config/resolved.yaml").read_text())


@pytest.fixture
def stack(client, original) -> dict[str, Any]:
    return json.loads((folder_of(client.get_run(original)) / "environment/stack.json").read_text())


@pytest.fixture
def again(place) -> Callable[..., Ended]:
    """`again(run_id, "seed=1")`: `python -m poolwise.reproduce`, in this process."""

    def command(*arguments: str) -> Ended:
        before = runs(place)
        done = called(*arguments, folder=Path.cwd(), module="poolwise.reproduce")
        made = tuple(run_id for run_id in runs(place) if run_id not in before)
        return Ended(done.returncode, done.stdout, done.stderr, made)

    return command


def runs(place: Path) -> list[str]:
    """Every run of the store, read past MLflow, which takes a while for hundreds of them."""
    with closing(sqlite3.connect(place / "mlflow.db")) as database:
        return [run_id for (run_id,) in database.execute("SELECT run_uuid FROM runs")]


def folder_of(run: Run) -> Path:
    """Where the artifacts of a run are."""
    return Path(run.info.artifact_uri.removeprefix("file://"))


def files(folder: Path) -> set[Path]:
    """What lies beside the store."""
    return {path for path in folder.parent.rglob("*") if not path.name.startswith("mlflow.db")}


def artifact(client: MlflowClient, run_id: str, name: str) -> str:
    return (folder_of(client.get_run(run_id)) / name).read_text()


# The same run again.


@pytest.fixture(scope="module")
def reproduced(place, original, uri) -> tuple[str, rerun.Judgement]:
    """The original made again, once for all tests that look at it: (run id, judgement)."""
    before = runs(place)
    found = rerun.reproduce(original, uri=uri)
    (run_id,) = [each for each in runs(place) if each not in before]
    return run_id, found


def test_a_run_made_again_is_bit_identical(reproduced):
    _, found = reproduced
    assert (found.verdict, found.cause, found.remarks) == ("bit-identical", "", ())


def test_a_rerun_is_a_run_that_says_what_it_is(client, original, reproduced):
    run = client.get_run(reproduced[0])
    tags = {name: run.data.tags[name] for name in ("reproduces", "reproduction", "reproduction_cause")}
    assert tags == {"reproduces": original, "reproduction": "bit-identical", "reproduction_cause": "none"}
    assert run.data.tags["mlflow.source.name"] == "poolwise.reproduce"
    assert run.data.tags["mlflow.note.content"].startswith(f"reproduces run {original}\n")
    assert run.info.status == "FINISHED"
    assert run.info.run_name.endswith(" again")


def test_a_rerun_holds_the_judgement(client, original, reproduced):
    told = json.loads(artifact(client, reproduced[0], "reproduction/judgement.json"))
    assert (told["reproduces"], told["verdict"], told["z"]) == (original, "bit-identical", 0)
    shifts = artifact(client, reproduced[0], "reproduction/shifts.csv").splitlines()
    assert shifts[0] == "quantity,one,other,mcse,z"
    assert len(shifts) == 1 + 2 * 7 + 1  # mean and sd of mu, sigma and five rates; elpd_loo


def test_the_original_is_marked_and_else_as_it_was(client, original, reproduced):
    run = client.get_run(original)
    assert run.data.tags["reproduction"] == "bit-identical"
    assert "reproduces" not in run.data.tags
    assert (run.info.status, run.data.tags["verdict"]) == ("FINISHED", "trusted")
    assert not (folder_of(run) / "reproduction").exists()


def test_what_differs_is_said_before_the_fit_and_judged_after(again, original):
    ended = again(original, "prior.mu.rate=0.3")
    lines = ended.out.splitlines()
    fitted = lines.index("hierarchical poisson fit of 150 counts (chips) in 5 groups")
    assert lines.index("  * config: prior.mu.rate is 0.2 there, 0.3 here") < fitted
    assert fitted < lines.index(ended.verdict)
    assert (ended.code, ended.cause) == (1, "config: prior.mu.rate is 0.2 there, 0.3 here")


def test_a_changed_setting_that_decides_no_draw_is_named_and_no_cause(again, original):
    ended = again(original, "sampler.checkpoint_every=70", "predict.num_draws=100")
    assert (ended.code, ended.verdict[:13]) == (0, "bit-identical")
    assert "config: sampler.checkpoint_every is 1000 there, 70 here (decides no draw)" in ended.out
    assert "config: predict.num_draws is 1000 there, 100 here (decides no draw)" in ended.out


def test_the_judgement_is_on_both_runs_if_they_differ(again, client, forge):
    run_id = forge()
    ended = again(run_id, "seed=3")
    (made,) = ended.made
    for each in (run_id, made):
        tags = client.get_run(each).data.tags
        assert (tags["reproduction"], tags["reproduction_cause"]) == ("different", "config: seed is 0 there, 3 here")


def test_the_runs_own_config_is_used_whatever_the_defaults_are_now(again, forge, settings, tmp_path, monkeypatch):
    conf = shutil.copytree(CONF, tmp_path / "conf")
    for name, change in {
        "sampler/notebook.yaml": ("num_samples: 4000", "num_samples: 77"),
        "prior/mu/gamma.yaml": ("rate: 0.2", "rate: 20"),
        "predict/standard.yaml": ("num_draws: 1000", "num_draws: 7"),
        "config.yaml": ("seed: 0", "seed: 9"),
        "data/cookies.yaml": ("count: chips", "count: crumbs"),
    }.items():
        text = (conf / name).read_text()
        assert change[0] in text
        (conf / name).write_text(text.replace(*change))
    monkeypatch.setattr(rerun, "CONF", conf)
    ended = again(forge(settings))
    assert (ended.code, ended.verdict[:13]) == (0, "bit-identical")
    assert "predict" not in ended.out


def test_the_store_that_a_config_names_is_not_used(again, forge, settings, tmp_path):
    settings["tracking"]["uri"] = f"sqlite:///{tmp_path}/evil/mlflow.db"
    ended = again(forge(settings))
    assert (ended.code, len(ended.made)) == (0, 1)
    assert not (tmp_path / "evil").exists()


def test_a_store_can_be_named(again, client, original, place, monkeypatch, tmp_path):
    monkeypatch.setenv("POOLWISE_OUTPUTS", str(tmp_path / "elsewhere"))
    ended = again(original, "--tracking-uri", f"sqlite:///{place}/mlflow.db")
    assert (ended.code, len(ended.made)) == (0, 1)
    assert not (tmp_path / "elsewhere/mlflow.db").exists()


def test_the_fit_of_a_killed_rerun_is_not_taken_for_one(again, original, client):
    # a reproduction is a fit: nothing is reused, and nothing gone on with
    ended = again(original)
    assert "draws_from" not in client.get_run(ended.made[0]).data.tags


# Runs of older versions.


def test_an_older_run_reproduces(again, forge, settings, stack):
    for name in ("device_kind", "jax_flags", "xla_flags"):
        del stack[name]
    del settings["sweep"], settings["reuse"]
    gone = ("code/files.json", "code/lock.json", "posterior/sha256.json")
    run_id = forge(settings, dict.fromkeys(gone) | {"environment/stack.json": json.dumps(stack)})
    ended = again(run_id)
    assert (ended.code, ended.verdict[:13]) == (0, "bit-identical")
    assert "device_kind, xla_flags, jax_flags are not recorded there" in ended.out


@pytest.mark.parametrize(
    ("section", "key", "told"),
    [
        ("sweep", "compare", "sweep.compare=true"),
        ("predict", "exposure", "predict.exposure=null"),
        ("reuse", None, "reuse=null"),
        ("plots", None, 'plots.figures=["'),
    ],
)
def test_a_key_that_decides_no_draw_is_taken_from_today_and_said(again, forge, settings, section, key, told):
    if key:
        del settings[section][key]
    else:
        del settings[section]
    ended = again(forge(settings))
    assert ended.code == 0
    assert re.search(rf"^run \w{{6}} did not record {re.escape(told)}.*: current defaults used", ended.out)


@pytest.mark.parametrize(
    ("section", "key"),
    [("sampler", "target_accept"), ("sampler", "checkpoint_every"), ("device", "x64"), ("seed", None), ("prior", None)],
)
def test_a_key_that_may_decide_draws_is_never_made_up(again, forge, settings, section, key):
    if key:
        del settings[section][key]
    else:
        del settings[section]
    ended = again(forge(settings))
    assert (ended.code, ended.made) == (2, ())
    assert f"{section}.{key} is missing" in ended.err or section in ended.err
    assert "--at-commit repeats it with that version." in ended.err


# Configs that nobody's run has.

BILLION = "a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\nd: &d [*c,*c]\n"
type Hostile = dict[str, tuple[Any, str]]  # label: (what becomes of the config, a part of the message)

NOT_READ: Hostile = {
    "tag that calls": ("seed: !!python/object/apply:os.system ['touch pwned']", "cannot be read: could not determine"),
    "tag that names": ("seed: !!python/name:os.system", "cannot be read: could not determine"),
    "tag of a module": ("seed: !!python/module:this", "cannot be read: could not determine"),
    "aliases, a billion": (BILLION, "an alias"),
    "merge of an alias": ("a: &a {x: 1}\nb: {<<: *a}", "an alias"),
    "levels without end": ("[" * 90_000, "more than 1000 brackets"),
    "text without end": ("a" * 200_000, "200000 characters"),
    "a number without end": ("seed: " + "9" * 5000, "cannot be read: Exceeds the limit"),
    "no sections": ("- seed: 0", "has no sections"),
    "empty": ("# nothing", "has no sections"),
    "environment read": ({"data.path": "${oc.env:HOME}"}, "an interpolation"),
    "interpolation in a list": ({"plots.figures": ["${hydra:runtime.cwd}"]}, "an interpolation"),
    "interpolation as a key": ({"prior.${oc.env:HOME}": 1}, "an interpolation"),
    "decoded import": ({"seed": "${oc.decode:'!!python/name:os.system'}"}, "an interpolation"),
    "_target_ on top": ({"_target_": "os.system"}, "the key '_target_'"),
    "_target_ of a prior": ({"prior.mu._target_": "os.system"}, "the key 'prior.mu._target_'"),
    "_target_ of a site": ({"prior._target_": "os.system"}, "the key 'prior._target_'"),
    "_target_ of the data": ({"data._target_": "os.system"}, "the key 'data._target_'"),
    "_partial_, _args_": ({"sampler._partial_": True, "sampler._args_": []}, "the key 'sampler._partial_'"),
    "hydra callbacks": ({"hydra": {"callbacks": {"x": {"_target_": "os.system"}}}}, "the key 'hydra."),
    "hydra search path": ({"hydra": {"searchpath": ["file:///tmp"]}}, "the key 'hydra.searchpath'"),
    "hydra launcher": ({"hydra": {"launcher": {"n_jobs": 99}}}, "the key 'hydra.launcher.n_jobs'"),
    "hydra, empty": ({"hydra": {}}, "the key 'hydra'"),
    "defaults list": ({"defaults": ["/hydra/launcher: submitit_slurm"]}, "the key 'defaults'"),
    "an experiment": ({"experiments": "model_grid"}, "the key 'experiments'"),
    "a section that is a text": ({"sampler": "quick"}, "has no keys in sampler"),
    "a section that is null": ({"device": None}, "has no keys in device"),
    "a section that is a list": ({"prior": ["mu"]}, "has no keys in prior"),
    "a date": ("seed: 2020-01-01", "a date"),
}
NOT_TAKEN: Hostile = {
    "import path of a prior": ({"prior.mu.name": "numpyro.distributions.Gamma"}, "prior.mu.name is numpyro."),
    "os.system as a prior": ({"prior.mu.name": "os.system"}, "prior.mu.name is os.system"),
    "eval as a prior": ({"prior.mu.name": "__import__('os').system('touch pwned')"}, "prior.mu.name is __import__"),
    "a prior outside the registry": ({"prior.mu.name": "Normal"}, "prior.mu.name is Normal"),
    "a prior that is a path": ({"prior.mu.name": "../../gamma"}, "prior.mu.name is ../../gamma"),
    "a prior without a name": ({"prior.mu.name": None}, "prior.mu.name is None"),
    "a prior that is a list": ({"prior.mu": ["Gamma"]}, "prior.mu is missing"),
    "a parameter of a prior": ({"prior.mu.validate_args": False}, "prior.mu.validate_args is not a parameter"),
    "a prior's value, text": ({"prior.mu.rate": "0.2"}, "prior.mu.rate is 0.2; it must be a finite number"),
    "a prior's value, nan": ({"prior.mu.rate": float("nan")}, "prior.mu.rate is nan"),
    "a prior's value, inf": ({"prior.mu.rate": float("inf")}, "prior.mu.rate is inf"),
    "a prior's value, a list": ({"prior.mu.rate": [0.2]}, "prior.mu.rate is [0.2]"),
    "a prior of no use": ({"prior.delta": {"name": "os.system"}}, "prior.delta is not used"),
    "a site of no model": ({"prior.os": {"name": "system"}}, "prior.os is not a site of any model"),
    "import path of a pooling": ({"pooling.name": "os.system"}, "pooling.name is 'os.system'"),
    "a pooling that is a path": ({"pooling.name": "../../pooled"}, "pooling.name is '../../pooled'"),
    "import path of a likelihood": ({"likelihood.name": "os.system"}, "likelihood.name is 'os.system'"),
    "import path of a figure": ({"plots.figures": ["os.system"]}, "plots.figures.0 is 'os.system'"),
    "a figure that is a path": ({"plots.figures": ["../../rank"]}, "plots.figures.0 is '../../rank'"),
    "a platform that is a plugin": ({"device.platform": "os"}, "device.platform is 'os'"),
    "devices without end": ({"device.num_devices": 10**9}, "does not divide"),
    "an unknown section": ({"extra": {"name": "x"}}, "unknown key extra"),
    "an unknown key": ({"sampler.init_strategy": "os.system"}, "unknown key sampler.init_strategy"),
    "a seed that is none": ({"seed": -1}, "seed is -1"),
    "a seed without end": ({"seed": 2**63}, f"seed is {2**63}"),
    "a number as text": ({"sampler.num_samples": "400"}, "sampler.num_samples is '400'"),
    "a number that is nan": ({"sampler.target_accept": float("nan")}, "sampler.target_accept is nan"),
    "a length that is inf": ({"sampler.num_samples": float("inf")}, "sampler.num_samples is inf"),
    "a path upwards": ({"data.path": "../../etc/passwd"}, "is outside the working folders"),
    "a path upwards, absolute": ({"data.path": "/tmp/../etc/passwd"}, "is outside the working folders"),
    "a name upwards": ({"data.name": "../../evil"}, "data.name of"),
    "a name without end": ({"data.name": "x" * 600}, "data.name of"),
    "a column that is a list": ({"data.exposure": ["x"]}, "data.exposure is"),
    "a column that is another": ({"data.count": "location"}, "named twice"),
    "a column that is not there": ({"data.count": "crumbs"}, "its artifact: "),
    "a password": ({"tracking.uri": "http://me:hunter2@host/"}, "tracking.uri contains a user name or password"),
    "a key for the terminal": ({"sampler.\x1b]0;x\x07": 1}, "unknown key sampler.\\x1b]0;x\\x07"),
}
HOSTILE = NOT_READ | NOT_TAKEN


def hostile(settings: dict[str, Any], change: Any) -> Any:
    """The config with leaves changed, or a text instead of it."""
    if isinstance(change, str):
        return change
    changed = copy.deepcopy(settings)
    for key, value in change.items():
        place = changed
        *sections, leaf = key.split(".") if "${" not in key else ("prior", key.removeprefix("prior."))
        for name in sections:
            place = place[name]
        place[leaf] = value
    return changed


@pytest.mark.parametrize("label", HOSTILE)
def test_a_hostile_config_is_refused_and_leaves_no_trace(again, forge, settings, place, label):
    change, told = HOSTILE[label]
    run_id = forge(hostile(settings, change))
    before = files(place)
    ended = again(run_id)
    assert (ended.code, ended.made) == (2, ())
    assert told in ended.err
    assert all(re.match(r"\w+Error: [^\x00-\x1f]+$", line) for line in ended.err.splitlines())
    assert "hunter2" not in ended.err
    assert files(place) == before
    assert "reproduction" not in store.logged(run_id, uri=f"sqlite:///{place}/mlflow.db").tags


def test_what_is_forged_well_reproduces(again, forge, settings):
    # so the refusals above are of what was changed
    assert again(forge(settings)).code == 0


def test_a_run_of_the_version_that_said_rates_reproduces(again, forge, settings):
    then = settings | {"pooling": {"name": "hierarchical", "rates": "standardised"}}
    del then["sampler"]["name"]  # there was one engine
    ended = again(forge(then, {"config/overrides.yaml": "- pooling.rates=standardised\n"}))
    assert ended.code == 0
    assert "bit-identical" in ended.out
    assert "no recorded input differs" in ended.out


def test_a_config_that_was_edited_in_the_store_is_refused(again, forge, settings):
    run_id = forge(files={"config/resolved.json": json.dumps(settings | {"seed": 1})})
    ended = again(run_id)
    assert (ended.code, ended.made) == (2, ())
    assert "contradicts itself: seed is 1 in config/resolved.json, '0' in its parameters" in ended.err


def test_a_name_cannot_write_to_the_terminal(again, forge):
    ended = again(forge(name="hier\x1b[2J\x1b]0;gone\x07"))
    assert ended.code == 0
    assert "\x1b" not in ended.out + ended.err


# The data.


def cookies(folder: Path, *, changed: int = 0) -> Path:
    """The shipped table, with one count higher by so many."""
    lines = (ROOT / "data/cookies.csv").read_text().splitlines()
    head, first = lines[0].split(","), lines[1].split(",")
    first[head.index("chips")] = str(int(first[head.index("chips")]) + changed)
    path = folder / "given.csv"
    path.write_text("\n".join([lines[0], ",".join(first), *lines[2:]]) + "\n")
    return path


def test_another_table_makes_another_run_and_is_the_cause(again, original, tmp_path):
    ended = again(original, "--data", str(cookies(tmp_path, changed=1)))
    assert ended.code == 1
    assert ended.cause.startswith("data: the counts differ (data_sha256 ")
    assert ended.verdict.startswith("different: ")


def test_the_same_table_elsewhere_is_the_same_data(again, original, tmp_path):
    ended = again(original, "--data", str(cookies(tmp_path)))
    assert (ended.code, ended.verdict[:13]) == (0, "bit-identical")
    assert f"data: data.path is data/cookies.csv there, {tmp_path}/given.csv here (decides no draw)" in ended.out


def test_a_table_that_is_not_there_is_told(again, original):
    ended = again(original, "--data", "none.csv")
    assert (ended.code, ended.made) == (2, ())
    assert ended.err.startswith("DataError: none.csv: no such file")


@pytest.mark.parametrize("artifact", [None, "tampered"])
def test_without_its_artifact_a_run_has_the_table_at_its_path(again, forge, tmp_path, artifact):
    content = cookies(tmp_path, changed=1).read_text() if artifact else None
    assert again(forge(files={"data/cookies.csv": content})).code == 0  # data/cookies.csv of the checkout


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("{tmp}/given.csv", "its path is not a file in the working folders"),
        ("none.csv", "its path is not a file in the working folders"),
        ("data/cookies.csv", ""),
    ],
)
def test_a_path_is_followed_within_the_working_folders_alone(again, forge, settings, tmp_path, path, told):
    cookies(tmp_path)
    settings["data"]["path"] = path.format(tmp=tmp_path)
    ended = again(forge(settings, {"data/cookies.csv": None}))
    assert ended.code == (2 if told else 0)
    assert told in ended.err
    assert not told or ended.err.rstrip().endswith("Give the table: --data PATH.")


def test_data_that_were_changed_are_not_fitted(again, forge, settings, tmp_path):
    settings["data"]["path"] = "elsewhere.csv"
    ended = again(forge(settings, {"data/cookies.csv": cookies(tmp_path, changed=1).read_text()}))
    assert (ended.code, ended.made) == (2, ())
    assert "its artifact has other counts" in ended.err


# Requests that cannot be met.


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (["seed"], "seed sets nothing. Write <key>=<value>"),
        (["seed=["], "seed=[ cannot be read. Check its brackets"),
        (["+seed=1"], "does not change one setting to one value"),
        (["~seed"], "does not change one setting to one value"),
        (["seed=1,2"], "does not change one setting to one value"),
        (["sampler=quick"], "sampler=quick is a choice of the current config, not of the run's."),
        (["prior/sigma=half_normal"], "is a choice of the current config, not of the run's."),
        (["data.path=x.csv"], "data.path=x.csv cannot be changed here. Give another table with --data."),
        (["tracking.uri=http://x"], "cannot be changed here. Name the store with --tracking-uri."),
        (["hydra.run.dir=x"], "hydra.run.dir=x is not a setting of a run."),
        (["seed.x=1"], "unknown key seed.x. seed has a value and no keys."),
        (["sampler.num_sample=1"], "Did you mean sampler.num_samples?"),
        (["prior.delta.scale=1"], "prior.delta is not used by the hierarchical poisson model."),
        (["device.num_devices=3"], "does not divide"),
        (["device.platform=gpu"], "DeviceError"),
    ],
)
def test_a_change_that_cannot_be_is_told_in_words(again, original, changes, told):
    ended = again(original, *changes)
    assert (ended.code, ended.made) == (2, ())
    assert told in ended.err
    assert "Traceback" not in ended.err


def test_a_run_that_is_nowhere_is_told(again, place):
    before = files(place)
    for run_id in ("0" * 32, "nonsense", "../../x", ""):
        ended = again(run_id)
        assert ended.code == 2
        assert ended.err.startswith("UnknownRunError: ")
    assert files(place) == before


def test_a_store_that_is_nowhere_is_not_made(again, original, tmp_path):
    ended = again(original, "--tracking-uri", f"sqlite:///{tmp_path}/none/mlflow.db")
    assert (ended.code, list(tmp_path.iterdir())) == (2, [])
    assert "does not exist. Check --tracking-uri" in ended.err


def test_a_store_that_does_not_answer_is_told(again, original):
    ended = again(original, "--tracking-uri", "http://someone:hunter2@127.0.0.1:9")
    assert ended.code == 2
    assert ended.err.startswith("ReproductionError: http://127.0.0.1:9: ")
    assert len(ended.err.splitlines()) == 1
    assert "hunter2" not in ended.err


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"tags": {"kind": "sweep"}}, "is a sweep. Name one of its fits."),
        ({"tags": {"kind": "comparison"}}, "is a comparison. Name one of its fits."),
        ({"status": "FAILED"}, "is FAILED: it has no result to compare with."),
        ({"status": "KILLED"}, "is KILLED: it has no result"),
        ({"files": {"config/resolved.json": None, "config/resolved.yaml": None}}, "it is not a fit of poolwise."),
        ({"files": {"tables/summary.csv": None}}, "has no tables/summary.csv"),
        ({"tags": {"posterior_sha256": "0" * 64}}, "contradicts itself: posterior_sha256"),
        ({"tags": {"data_sha256": "0" * 64}}, "contradicts itself: data_sha256"),
    ],
)
@pytest.mark.parametrize("way", ["again", "against"])
def test_what_is_no_finished_whole_fit_is_refused(again, forge, original, how, told, way):
    run_id = forge(**how)
    ended = again(run_id) if way == "again" else again(original, "--against", run_id)
    assert (ended.code, ended.made) == (2, ())
    assert ended.err.startswith("ReproductionError: ")
    assert told in ended.err
    assert len(ended.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("error", "code"), [(TrackingError("no room"), 2), (FitError("chains 0: no starting point"), 1)]
)
def test_what_ends_before_a_judgement_says_so(again, original, monkeypatch, error, code):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(pipeline, "carry_out", fail)
    ended = again(original)
    assert (ended.code, str(error) in ended.err) == (code, True)
    assert "identical" not in ended.out


def test_a_judgement_that_cannot_be_logged_is_said_all_the_same(again, original, monkeypatch):
    def fail(*_, **__):
        raise OSError("no room")

    monkeypatch.setattr(store, "attach", fail)
    ended = again(original)
    assert (ended.code, ended.verdict[:13]) == (0, "bit-identical")
    assert ended.err == f"tracking: judgement not logged to run {original}: no room\n"


@pytest.mark.parametrize("also", [["seed=1"], ["--at-commit"], ["--data", "x.csv"]])
def test_against_goes_with_nothing_else(again, original, also):
    ended = again(original, "--against", original, *also)
    assert ended.code == 2
    assert "--against fits nothing" in ended.err


# Two runs that are there.


@pytest.mark.parametrize(
    ("overrides", "kind", "told"),
    [
        (["seed=5"], "config", "seed is 0 in {one}, 5 in {other}"),
        (["sampler.num_samples=500"], "config", "sampler.num_samples is 400 in {one}, 500 in {other}"),
    ],
)
def test_against_names_what_differs_between_two_runs(again, original, overrides, kind, told):
    other = fit(*overrides)
    ended = again(original, "--against", other)
    assert (ended.code, ended.made) == (1, ())
    assert ended.cause == f"{kind}: " + told.format(one=original[:6], other=other[:6])


def test_against_names_other_data(again, original, tmp_path):
    columns = ("data.group=location", "data.count=chips", "data.name=cookies")
    other = fit("data=table", f"data.path={cookies(tmp_path, changed=1)}", *columns)
    ended = again(original, "--against", other)
    assert ended.code == 1
    assert ended.cause.startswith("data: the counts differ (data_sha256 ")


def test_against_finds_equal_runs_equal(again, original, reproduced):
    ended = again("--against", reproduced[0], original)
    assert (ended.code, ended.made) == (0, ())
    assert "no recorded input differs" in ended.out
    assert ended.verdict == "bit-identical: all draws have the same sha256"


# With the run's own code: what is refused before anything of it runs, and what is handed over to it.

COMMIT = json.dumps({"state": "clean", "commit": "0" * 40, "branch": "main"})


@pytest.fixture
def handed(monkeypatch) -> list[dict[str, Any]]:
    """What is handed over to the run's own code, which does not run."""
    found: list[dict[str, Any]] = []

    def call(code: Path, python: Path, settings: dict[str, Any], uri: str) -> Path:
        found.append(settings)
        raise FitError("not run in a test")

    monkeypatch.setattr(rerun, "_run_there", call)
    return found


@pytest.fixture
def at_commit(again, handed, monkeypatch, tmp_path) -> Callable[..., Ended]:
    """`again` with `--at-commit`, where any commit is the code and the lock that are here."""
    for name in ("src", "requirements.lock"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.setattr(rerun, "checkout", lambda root, commit, patch: nullcontext(tmp_path))
    return lambda *arguments: again(*arguments, "--at-commit")


@pytest.mark.parametrize("label", [each for each in NOT_READ if each.startswith(("hydra", "defaults", "_target_"))])
def test_a_hostile_config_is_not_handed_to_the_runs_own_code(at_commit, handed, forge, settings, place, label):
    change, told = NOT_READ[label]
    run_id = forge(hostile(settings, change), {"code/commit.json": COMMIT})
    before = files(place)
    ended = at_commit(run_id)
    assert (ended.code, told in ended.err, files(place) == before, handed) == (2, True, True, [])


def test_a_section_that_no_version_had_is_not_handed_over(at_commit, handed, forge, settings):
    ended = at_commit(forge(settings | {"extra": {"name": "x"}}, {"code/commit.json": COMMIT}))
    assert (ended.code, handed) == (2, [])
    assert "has extra, which no version known here has: refused." in ended.err


@pytest.mark.parametrize("sections", [[], ["reuse"], ["reuse", "sweep", "tracking"]])
def test_a_config_is_handed_over_as_it_is(at_commit, handed, forge, settings, sections):
    # an older version has no such section and would refuse one
    for name in sections:
        del settings[name]
    ended = at_commit(forge(settings, {"code/commit.json": COMMIT}), "seed=7")
    assert (ended.code, len(handed)) == (1, 1)
    table = handed[0]["data"].pop("path")
    assert Path(table).read_bytes() == (ROOT / "data/cookies.csv").read_bytes()
    del settings["data"]["path"]
    assert handed[0] == settings | {"seed": 7} | ({} if "reuse" in sections else {"reuse": False})


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"commit": ""}, "recorded no commit"),
        ({"commit": None}, "recorded no commit"),
        ({"commit": "--upload-pack=touch pwned"}, "'--upload-pack=touch pwned' is not a commit id"),
        ({"commit": "HEAD"}, "'HEAD' is not a commit id"),
        ({"commit": ["x"]}, "is not a commit id"),
        ({"commit": "0" * 40}, "has no commit 0000"),
    ],
)
def test_what_is_no_commit_is_refused(again, handed, forge, content, told):
    run_id = forge(files={"code/commit.json": json.dumps({"state": "clean"} | content)})
    ended = again(run_id, "--at-commit")
    assert (ended.code, handed) == (2, [])
    # a checkout that is no repository, as an unpacked archive, says that first
    assert told in ended.err or "is not a readable git repository" in ended.err


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model/count_model.py": "0" * 64}, "does not restore its code: model/count_model.py differs"),
        ({"text.py": "0" * 64, "extra.py": "1" * 64}, "does not restore its code: extra.py, text.py differ"),
        ({"../\x1b[2J": "0"}, "does not restore its code: ../\\x1b[2J differs"),
        ({"run.py": None}, "does not restore its code: run.py differs"),
    ],
)
def test_a_commit_that_is_not_the_code_that_ran_is_refused(at_commit, handed, client, original, forge, change, told):
    recorded = json.loads(artifact(client, original, "code/files.json")) | change
    recorded = {name: digest for name, digest in recorded.items() if digest}
    ended = at_commit(forge(files={"code/commit.json": COMMIT, "code/files.json": json.dumps(recorded)}))
    assert (ended.code, handed) == (2, [])
    assert told in ended.err


@pytest.mark.parametrize(
    ("lock", "told"),
    [
        ({"name": "../../../etc/passwd"}, "'../../../etc/passwd': refused. It must be requirements.lock"),
        ({"name": "/etc/passwd"}, "'/etc/passwd': refused."),
        ({"name": "src/poolwise/run.py"}, "'src/poolwise/run.py': refused."),
        ({"name": ["x"]}, "refused."),
        ({"name": "requirements.lock", "sha256": "0" * 64}, "has requirements.lock with sha256 '000000000000'"),
    ],
)
def test_a_lock_that_is_none_is_refused(at_commit, handed, forge, lock, told):
    ended = at_commit(forge(files={"code/commit.json": COMMIT, "code/lock.json": json.dumps(lock)}))
    assert (ended.code, handed) == (2, [])
    assert told in ended.err


@pytest.mark.parametrize(
    ("requirements", "lock", "told"),
    [
        ("jax==0.1\n", "--index-url=http://example.org\nsix==1.16.0\n", "the run's lock:1: '--index-url="),
        ("jax==0.1\n", "", "the run has no lock, and its distributions differ from those installed here"),
    ],
)
def test_an_environment_of_a_hostile_lock_is_not_built(
    at_commit, handed, forge, place, tmp_path, requirements, lock, told
):
    (tmp_path / "requirements.lock").unlink()  # of the commit
    written = {"environment/requirements.txt": requirements, "environment/requirements.lock": lock}
    ended = at_commit(forge(files={"code/commit.json": COMMIT, "code/lock.json": "{}"} | written))
    assert (ended.code, handed, told in ended.err) == (2, [], True)
    assert not (place / "environments").exists()


def test_a_lock_cannot_hide_an_option_behind_an_encoding(tmp_path, monkeypatch):
    # to pip, which obeys PEP 263 in these files, the pin ends with a line `--index-url=http://127.0.0.1:9/simple`
    hidden = base64.b64encode("\n--index-url=http://127.0.0.1:9/simple\n".encode("utf-16-be")).rstrip(b"=")
    lock = b"# -*- coding: utf-7 -*-\nsix==1.16.0+" + hidden + b"\n"
    assert b"\n--index-url=http" in lock.decode("utf-7").encode()
    monkeypatch.setattr(environment, "_call", lambda *_: None)
    environment.python_of("jax==0.1\n", lock=lock, python=platform.python_version(), folder=tmp_path)
    (written,) = tmp_path.glob("*/requirements.lock")
    assert written.read_bytes() == lock.splitlines(keepends=True)[1]


STUB = """
import json, os, sys
from pathlib import Path
import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

@hydra.main(version_base="1.3", config_path=None)
def main(composed):
    told = {"settings": OmegaConf.to_container(composed, resolve=True), "uri": os.environ["MLFLOW_TRACKING_URI"]}
    told |= {"folder": HydraConfig.get().runtime.output_dir, "overrides": list(HydraConfig.get().overrides.task)}
    Path("told.json").write_text(json.dumps(told))
    print("folder  /no/such/folder")
    print("folder  " + os.getcwd())

main()
"""


def own_code(folder: Path, text: str) -> None:
    """A checkout whose `poolwise.run` is this."""
    (folder / "src/poolwise").mkdir(parents=True)
    (folder / "src/poolwise/__init__.py").touch()
    (folder / "src/poolwise/run.py").write_text(text)


def test_the_runs_own_code_gets_its_settings_and_no_other(settings, tmp_path, monkeypatch, capfd):
    own_code(tmp_path, STUB)
    outputs = tmp_path / "out, puts='1' {x}"
    outputs.mkdir()
    monkeypatch.setenv("POOLWISE_OUTPUTS", str(outputs))
    # texts that look like something else, to YAML or to Hydra
    settings["data"] |= {"group": "1e3", "count": "null", "exposure": "0x1F, [a]", "name": "Zürich: 'é' \"\\\n"}
    found = rerun._run_there(tmp_path, Path(sys.executable), settings, "sqlite:////x")
    told = json.loads((tmp_path / "told.json").read_text())
    assert found == tmp_path  # the last line that names one, whatever the run printed before
    assert told == {"settings": settings, "uri": "sqlite:////x", "folder": str(outputs), "overrides": []}
    assert {path.name for path in tmp_path.iterdir()} == {"src", "told.json", outputs.name}
    assert list(outputs.iterdir()) == []


@pytest.mark.parametrize(
    ("code", "error"), [(2, rerun.ReproductionError), (1, FitError), (130, FitError), (0, FitError)]
)
def test_how_the_runs_own_code_ends_is_how_the_command_ends(settings, tmp_path, code, error):
    own_code(tmp_path, f"raise SystemExit({code})")
    with pytest.raises(error, match="see its messages above"):
        rerun._run_there(tmp_path, Path(sys.executable), settings, "sqlite:////x")


# In fresh processes, with a checkout of their own.


POISSON = "src/poolwise/model/likelihoods/poisson.py"
TOTAL = 'statistics["group_exposure"] * lam'  # the mean of a group's total


class Checkout:
    """A repository with the code that is here, and its outputs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.outputs = folder / "poolwise", folder / "outputs"
        for name in ("src", "conf", "data", "experiments"):
            shutil.copytree(ROOT / name, self.folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in (".gitignore", "pyproject.toml", "requirements.lock"):
            shutil.copy(ROOT / name, self.folder / name)
        self.git("init", "--quiet")
        self.commit()

    def git(self, *arguments: str) -> None:
        who = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org")
        subprocess.run(["git", *who, *arguments], cwd=self.folder, check=True, capture_output=True)

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "one step")

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.folder / name
        text = path.read_text()
        assert text.count(old) == 1
        path.write_text(text.replace(old, new))

    def call(self, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", f"poolwise.{module}", *arguments],
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": str(self.folder / "src"), "POOLWISE_OUTPUTS": str(self.outputs)},
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )

    def run(self, *overrides: str) -> str:
        """`python -m poolwise.run` with its code; returns the run id."""
        done = self.call("run", "plots=none", *overrides)
        assert done.returncode == 0, done.stderr
        return re.search(r"^run     (\w+)$", done.stdout, re.M)[1]

    def again(self, *arguments: str) -> Ended:
        """`python -m poolwise.reproduce` with its code."""
        before = runs(self.outputs)
        done = self.call("reproduce", *arguments)
        made = tuple(each for each in runs(self.outputs) if each not in before)
        return Ended(done.returncode, done.stdout, done.stderr, made)

    def tags(self, run_id: str) -> dict[str, str]:
        return store.logged(run_id, uri=f"sqlite:///{self.outputs}/mlflow.db").tags


@pytest.fixture
def checkout(tmp_path) -> Checkout:
    return Checkout(tmp_path)


def give_model_an_untracked_module(checkout: Checkout) -> None:
    """A module that git does not know, which the likelihood needs."""
    (checkout.folder / "src/poolwise/extra.py").write_text('"""A constant."""\n\nNUDGE = 1.5\n')
    checkout.edit(POISSON, "from poolwise.model.priors", "from poolwise.extra import NUDGE\nfrom poolwise.model.priors")
    checkout.edit(POISSON, TOTAL, f"NUDGE * {TOTAL}")


@pytest.mark.slow
def test_a_dirty_tree_with_an_untracked_module_reproduces_at_its_commit(checkout):
    give_model_an_untracked_module(checkout)
    original = checkout.run(*TINY)
    checkout.git("stash", "--include-untracked")
    checkout.edit("src/poolwise/report/note.py", '"""A fit in text', '"""A fit in other words')
    checkout.commit()  # and the history has gone on

    ended = checkout.again(original, "--at-commit")
    assert (ended.code, ended.err) == (0, ""), ended.err
    assert ended.verdict == "bit-identical: all draws have the same sha256"
    assert ended.out.splitlines()[-1] == ended.verdict  # nothing that is recorded differs
    assert re.search(r"^with its own code, commit \w{12} and its patch, in the environment of /", ended.out, re.M)
    (made,) = ended.made
    tags = checkout.tags(made)
    assert (tags["reproduces"], tags["reproduction"], tags["reproduction_cause"]) == (original, "bit-identical", "none")
    assert tags["mlflow.runName"].endswith(" again")
    assert checkout.tags(original)["reproduction"] == "bit-identical"
    assert not (checkout.folder / "src/poolwise/extra.py").exists()


@pytest.mark.slow
def test_the_same_run_with_the_code_that_is_here_is_different_and_the_code_is_named(checkout):
    give_model_an_untracked_module(checkout)
    original = checkout.run("sampler=quick")
    checkout.git("stash", "--include-untracked")
    ended = checkout.again(original)
    assert (ended.code, ended.cause) == (1, "code: model/likelihoods/poisson.py has changed")
    assert "extra.py" in ended.out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pooling", "likelihood", "num_devices"),
    [("pooled", "poisson", 1), ("unpooled", "negative_binomial", 4), ("hierarchical", "negative_binomial", 2)],
)  # one of each pooling; draws on more numbers of devices: test_nuts, test_marginal
def test_a_variant_reproduces_in_a_fresh_process(checkout, pooling, likelihood, num_devices):
    original = checkout.run("sampler=quick", f"pooling={pooling}", f"likelihood={likelihood}", "device.num_devices=2")
    ended = checkout.again(original, f"device.num_devices={num_devices}")
    assert (ended.code, ended.verdict) == (0, "bit-identical: all draws have the same sha256"), ended.err


@pytest.mark.slow
def test_a_run_made_again_in_single_precision_is_judged(checkout):
    original = checkout.run("sampler=quick", "pooling=pooled", "likelihood=poisson", "device.num_devices=2")
    single = checkout.again(original, "device.x64=false")
    assert single.err == ""
    assert single.verdict.startswith(("statistically equal: ", "different: "))
    assert single.code == single.verdict.startswith("different")
    assert single.cause == "device: device.x64 is True there, False here"
    uri = f"sqlite:///{checkout.outputs}/mlflow.db"
    told = json.loads(store.artifact(single.made[0], "reproduction/judgement.json", uri=uri).read_text())
    shifts = pd.read_csv(store.artifact(single.made[0], "reproduction/shifts.csv", uri=uri))
    assert shifts["z"].abs().max() == pytest.approx(abs(told["z"]))
    assert (abs(told["z"]) <= told["threshold"]) == (single.code == 0)  # both runs have converged


@pytest.mark.slow
def test_a_line_of_the_model_that_moves_the_posterior_is_the_cause(checkout):
    original = checkout.run("sampler=quick", "pooling=pooled")
    checkout.edit(POISSON, TOTAL, f"1.01 * {TOTAL}")
    ended = checkout.again(original)
    assert (ended.code, ended.cause) == (1, "code: model/likelihoods/poisson.py has changed")
    assert ended.out.index("  * code: model/likelihoods/poisson.py has changed") < ended.out.index("pooled poisson fit")
    checkout.git("checkout", "src")
    assert checkout.again(original).code == 0


@pytest.mark.slow
def test_a_comment_in_the_model_moves_nothing_and_is_named(checkout):
    original = checkout.run("sampler=quick", "pooling=pooled")
    checkout.edit(POISSON, '"""Poisson counts: ', '# a comment\n"""Counts: ')
    ended = checkout.again(original)
    assert (ended.code, ended.verdict[:13]) == (0, "bit-identical")
    assert "code: model/likelihoods/poisson.py has changed, without changing draws" in ended.out


@pytest.mark.slow
def test_the_runs_own_code_refuses_a_prior_outside_its_registry(checkout):
    original = checkout.run(*TINY)
    ended = checkout.again(original, "prior.mu.name=os.system", "--at-commit")
    assert (ended.code, ended.made) == (2, ())
    first, *_, last = ended.err.splitlines()
    assert first.startswith("ConfigError: prior.mu.name is os.system; mu is positive and accepts one of")
    assert last.startswith("ReproductionError: the run's own code refuses its config here")
    assert "Traceback" not in ended.err
