"""Every sweep that is written down runs, with few draws, from its file to the comparison at its end."""

import re
from pathlib import Path

import pytest
import yaml

from poolwise.tracking import store

FOLDER = Path(__file__).resolve().parents[1] / "experiments"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
FEW = ("sampler.num_warmup=150", "sampler.num_samples=200", "sampler.checkpoint_every=100", "plots=none")


def sweeper_of(name):
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text())["hydra"]["sweeper"]


def fewer(name):
    """Two choices of one list, the first of the others, and two trials: a longer sweep shows no more.

    Choices that are lists themselves, or an interval, stay as they are; then no other is varied.
    """
    params = {key: re.sub(r"^range\(0,\d+\)$", "0,1", str(each)) for key, each in sweeper_of(name)["params"].items()}
    lists = {key: choices.split(",") for key, choices in params.items() if not set("[(") & set(choices)}
    trials = ["hydra.sweeper.n_trials=2"] if "n_trials" in sweeper_of(name) else []
    several = [key for key, choices in lists.items() if len(choices) > 1]
    varied = several[0] if several and len(lists) == len(params) else None
    return [*trials, *(f"{key}={','.join(choices[: 1 + (key == varied)])}" for key, choices in lists.items())]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if "n_trials" not in sweeper_of(name)])
def test_every_job_of_an_experiment_is_valid(name, command):
    done = command(f"experiments={name}", "sweep.dry_run=true")
    assert done.returncode == 0, done.stderr
    assert " 0  " in done.stdout and "to fit" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_runs_to_its_comparison(name, command, outputs):
    done = command(f"experiments={name}", *FEW, *fewer(name))
    assert done.returncode == 0, done.stderr
    runs = store.search(uri=f"sqlite:///{outputs}/mlflow.db")
    assert {run.status for run in runs} == {"FINISHED"}
    assert [run.name for run in runs if run.tags.get("kind") == "sweep"] == [name]
    assert [run for run in runs if run.tags.get("kind") == "comparison"]


@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_is_headed_by_question_command_and_cost(name):
    head = (FOLDER / f"{name}.yaml").read_text()
    assert [word in head for word in ("# Question:", f"experiments={name}", "# Cost:")] == [True] * 3


def test_the_list_of_experiments_is_complete():
    listed = (FOLDER / "README.md").read_text()
    assert [name for name in NAMES if f"experiments={name}`" not in listed] == []
