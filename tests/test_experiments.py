"""Every sweep that is written down runs, with few draws, from its file to the comparison at its end."""

from pathlib import Path

import pytest
import yaml

from poolwise.tracking import store

FOLDER = Path(__file__).resolve().parents[1] / "experiments"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
FEW = ("sampler.num_warmup=150", "sampler.num_samples=200", "sampler.checkpoint_every=100", "plots=none")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_runs_to_its_comparison(name, command, outputs):
    written = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    fewer = ("hydra.sweeper.n_trials=2",) if "n_trials" in written["hydra"]["sweeper"] else ()
    done = command(f"experiments={name}", *FEW, *fewer)
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
