"""A multirun as a user meets it: the list, the parent, failures, kills and the second start."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from mlflow import MlflowClient

from poolwise.config import check
from poolwise.errors import ConfigError
from poolwise.paths import CONF, register_resolvers
from poolwise.sweeps import launch
from poolwise.sweeps import request as sweep_request
from poolwise.tracking import liveness, store
from support import ROOT, called

TINY = ("sampler.num_warmup=150", "sampler.num_samples=200", "sampler.checkpoint_every=100", "plots=none")
PAIR = ("-m", "pooling=pooled,unpooled", *TINY, "sweep.compare=false")
NO_START = ("prior.lam.name=Uniform", "+prior.lam.low=0", "+prior.lam.high=1e-320", "~prior.lam.concentration")
FAILING = ("-m", "pooling=hierarchical,pooled", *TINY, "sweep.compare=false", *NO_START, "~prior.lam.rate")


def uri_of(outputs: Path) -> str:
    return f"sqlite:///{outputs}/mlflow.db"


def logged(outputs: Path) -> list[store.Logged]:
    return store.search(uri=uri_of(outputs))


def split(outputs: Path) -> tuple[list[store.Logged], list[store.Logged]]:
    """Parents and their children."""
    found = logged(outputs)
    return [run for run in found if run.tags.get("kind") == "sweep"], [run for run in found if run.parent]


def digests(runs: list[store.Logged]) -> dict[str, str]:
    return {run.name: run.tags["posterior_sha256"] for run in runs if run.status == "FINISHED"}


@pytest.fixture(scope="module")
def pair(tmp_path_factory, migrated_store, started):
    """One finished sweep of two jobs: (completed process, outputs)."""
    outputs = tmp_path_factory.mktemp("pair") / "outputs"
    shutil.copytree(migrated_store, outputs)
    done = started(*PAIR, folder=outputs.parent, module="poolwise.run", POOLWISE_OUTPUTS=str(outputs))
    assert done.returncode == 0, done.stderr
    return done, outputs


def again(pair, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Another command in the outputs of the pair, in this process."""
    _, outputs = pair
    return called(*arguments, folder=outputs.parent, module="poolwise.run", POOLWISE_OUTPUTS=str(outputs))


def test_a_sweep_is_one_parent_with_its_fits_as_children(pair):
    (parent,), children = split(pair[1])
    assert {run.parent for run in children} == {parent.run_id}
    assert {run.tags["sweep"] for run in children} == {parent.run_id}
    assert [run.status for run in (parent, *children)] == ["FINISHED"] * 3


def test_the_list_of_jobs_says_what_will_be_done(pair):
    assert re.findall(r"^ +\d  (\S+) .* (\w+)$", pair[0].stdout, re.M) == [
        ("pooled-pois", "fit"),
        ("unpooled-pois", "fit"),
    ]


def test_the_parents_note_lists_every_job_with_its_elpd(pair):
    (parent,), children = split(pair[1])
    note = parent.tags["mlflow.note.content"]
    for run in children:
        assert f"| {run.name} | FINISHED | {run.metrics['elpd_loo']:.2f} | " in note


def test_the_parent_has_no_elpd_that_the_ranked_view_would_show(pair):
    (parent,), _ = split(pair[1])
    assert "elpd_loo" not in parent.metrics


def test_a_finished_sweep_started_again_fits_nothing_and_lists_what_it_reused(pair):
    before = len(split(pair[1])[1])
    done = again(pair, *PAIR)
    parents, children = split(pair[1])
    assert done.returncode == 0, done.stderr
    assert len(children) == before
    assert parents[0].tags["mlflow.note.content"].count("| reused |") == 2
    assert parents[0].metrics["jobs_reused"] == 2


@pytest.mark.slow  # a single run, which does not reuse either, is tested below
def test_reuse_false_fits_again(pair):
    before = len(split(pair[1])[1])
    assert again(pair, *PAIR, "reuse=false").returncode == 0
    assert len(split(pair[1])[1]) == before + 2


def test_a_single_run_fits_again_unless_it_is_told_to_reuse(pair):
    before = len(logged(pair[1]))
    told = again(pair, "pooling=pooled", *TINY, "reuse=true")
    assert (told.returncode, len(logged(pair[1]))) == (0, before)
    assert "reused" in told.stdout
    assert again(pair, "pooling=pooled", *TINY).returncode == 0
    assert len(logged(pair[1])) == before + 1


def test_equal_draws_are_analysed_again_without_a_fit(pair):
    done = again(pair, *PAIR, "predict.exposure=2.0")
    assert done.stdout.count("reanalysed from the draws of run") == 2, done.stderr
    parents, children = split(pair[1])
    fresh = [run for run in children if run.parent == parents[0].run_id]
    assert all("seconds/sample" not in run.metrics and "draws_from" in run.tags for run in fresh)
    first = [run for run in children if run.parent == parents[-1].run_id]
    assert set(digests(fresh).values()) == set(digests(first).values())


def test_a_near_miss_says_what_differs(pair, tmp_path):
    table = (ROOT / "data" / "cookies.csv").read_text().replace("12,1", "13,1", 1)
    (tmp_path / "cookies.csv").write_text(table)
    done = again(pair, *PAIR, f"data.path={tmp_path}/cookies.csv", "sweep.dry_run=true")
    assert re.search(r"to fit; run \w{6} was fitted to other data", done.stdout), done.stdout + done.stderr


@pytest.fixture
def lab(tmp_path) -> str:
    """A folder with choices of its own, as `--config-dir` takes it."""
    (tmp_path / "lab" / "prior" / "mu").mkdir(parents=True)
    (tmp_path / "lab" / "prior" / "mu" / "lab.yaml").write_text("name: Weibull\nscale: 8.0\nconcentration: 2.0\n")
    return str(tmp_path / "lab")


def test_choices_of_another_folder_are_checked_in_a_sweep(lab):
    register_resolvers()
    request = sweep_request.requested(["prior/mu=lab,gamma", "-m", "--config-dir", lab])
    assert [each.prior["mu"]["name"] for each in sweep_request.checked(request)] == ["Weibull", "Gamma"]


def test_a_sweep_freezes_the_folder_of_further_choices(lab, outputs):
    with launch.frozen_settings(lab) as arguments:
        frozen = Path(arguments[arguments.index("--config-dir") + 1])
        assert frozen.is_relative_to(outputs)
        assert (frozen / "prior" / "mu" / "lab.yaml").read_text().startswith("name: Weibull")


def test_a_folder_of_further_choices_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="--config-dir none is not a folder"):
        sweep_request.requested(["-m", "--config-dir", "none", "seed=0,1"])


def test_names_in_an_experiments_file_are_taken_as_typed(lab):
    experiment = (
        "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      predict.group: 'null,1_000'\n"
    )
    (Path(lab) / "experiments").mkdir()
    (Path(lab) / "experiments" / "labels.yaml").write_text(experiment)
    register_resolvers()
    request = sweep_request.requested(["experiments=labels", "--config-dir", lab])
    assert "predict.group='null','1_000'" in request.added
    assert [each.predict.group for each in sweep_request.checked(request)] == ["null", "1_000"]


def test_a_finished_sweep_with_more_figures_is_reused_and_said(pair):
    before = len(split(pair[1])[1])
    assert again(pair, *PAIR, "plots.figures=[ecdf,rank]").returncode == 0
    done = again(pair, *PAIR, "plots.figures=[rank]")
    assert done.stdout.count("); it has these figures and more") == 4  # in the list and at the end of each job
    parents, children = split(pair[1])
    assert len(children) == before + 2
    assert parents[0].metrics["jobs_reused"] == 2


def figures_of(*arguments: str) -> set[tuple[str, ...]]:
    """The figures that the jobs of a command line draw."""
    register_resolvers()
    request = sweep_request.requested(arguments)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return {check(compose("config", list(job))).plots.figures for job in request.jobs}


CORE = ("rank", "ecdf", "rootogram", "forest", "pareto_k", "energy")


@pytest.mark.fit  # some compose hundreds of jobs
@pytest.mark.parametrize(
    ("asked", "drawn"),
    [
        ((), {CORE}),
        (("plots=core",), {CORE}),
        (("plots=none",), {()}),
        (("plots.figures=[rank]",), {("rank",)}),
        (("plots=none,core",), {(), CORE}),
        (("experiments=prior_sensitivity",), {()}),  # it says so itself
        (("experiments=model_grid",), {CORE}),
    ],
)
def test_the_jobs_of_a_sweep_draw_the_core_unless_they_are_asked(asked, drawn):
    assert figures_of("-m", "seed=0,1", *asked) == drawn


def test_the_jobs_of_a_sweep_draw_all_where_all_is_asked_for():
    (drawn,) = figures_of("-m", "seed=0,1", "plots=full")
    assert set(CORE) < set(drawn)


def test_a_single_run_is_no_sweep_whatever_it_draws():
    assert sweep_request.requested(("seed=1",)) is None


def test_a_dry_run_lists_the_jobs_and_logs_nothing(command, outputs):
    done = command(*PAIR, "sweep.dry_run=true")
    assert (done.returncode, done.stdout.count("to fit")) == (0, 2)
    assert logged(outputs) == []


def test_a_dry_run_asked_for_by_one_job_alone_fits_none(command, outputs):
    done = command("-m", *TINY, "sweep.dry_run=false,true")
    assert done.returncode == 0, done.stderr
    assert not (outputs / "runs").exists()


def test_a_dry_run_of_a_single_run_is_its_line_of_the_list(pair):
    before = len(logged(pair[1]))
    asked = (*TINY, "pooling=pooled", "sweep.dry_run=true")
    plain, reusing = again(pair, *asked), again(pair, *asked, "reuse=true")
    assert (plain.returncode, reusing.returncode) == (0, 0), plain.stderr + reusing.stderr
    assert re.fullmatch(r" +0  pooled-pois.* to fit\n", plain.stdout)
    assert re.fullmatch(r" +0  pooled-pois.* (reused from|reanalysed from the draws of) run .*\n", reusing.stdout)
    assert len(logged(pair[1])) == before


@pytest.mark.parametrize(
    ("arguments", "numbers"),
    [
        (["-m", "sampler.num_samples=100,-4", "seed=0,1"], [2, 3]),
        (["-m", "seed=0,1,-1"], [2]),
        (["-m", "+sampler.draws=1,2"], [0, 1]),
    ],
)
def test_a_bad_value_anywhere_in_the_grid_stops_the_sweep_at_once(command, outputs, arguments, numbers):
    done = command(*arguments)
    assert done.returncode == 2
    assert [int(each) for each in re.findall(r"job (\d+)", done.stderr)] == numbers
    assert logged(outputs) == []


def test_a_bad_table_stops_the_sweep_at_once(command, outputs, tmp_path):
    (tmp_path / "bad.csv").write_text("g,y\na,3\na,3.5\n")
    done = command("-m", "data=table", "data.path=bad.csv", "data.group=g", "data.count=y", "seed=0,1")
    assert done.returncode == 2
    assert re.search(r"DataError: job 1: .*bad\.csv:3: y is 3\.5", done.stderr)
    assert logged(outputs) == []


def test_jobs_with_other_devices_are_refused_with_the_reason(command):
    done = command("-m", "device.num_devices=1,2", *TINY)
    assert done.returncode == 2
    assert "cannot change within a process" in done.stderr


# SciPy warns of the scale of this prior; in a process of its own that is a line on stderr
SUBNORMAL = pytest.mark.filterwarnings("ignore:overflow encountered in divide:RuntimeWarning")


@pytest.fixture(scope="module")
def failing(tmp_path_factory, migrated_store):
    """A sweep of which one job fails, twice: what each start ended with, its parents and their children."""
    outputs = tmp_path_factory.mktemp("failing") / "outputs"
    shutil.copytree(migrated_store, outputs)
    return [(again((None, outputs), *FAILING), *split(outputs)) for _ in range(2)]


@SUBNORMAL
def test_a_failing_job_ends_only_itself(failing):
    done, parents, children = failing[0]
    assert done.returncode == 1
    statuses = {run.params["pooling.name"]: run.status for run in children}
    assert statuses == {"hierarchical": "FINISHED", "pooled": "FAILED"}
    assert parents[0].status == "FAILED"
    assert re.search(r"SweepError: job 1 .*FAILED \(run \w+\): chains 0, 1, 2, 3: no starting point", done.stderr)


@SUBNORMAL
def test_a_sweep_that_failed_goes_on_with_its_parent_and_fits_only_what_is_missing(failing):
    done, parents, children = failing[1]
    assert done.returncode == 1
    assert len(parents) == 1
    assert sorted(run.status for run in children) == ["FAILED", "FAILED", "FINISHED"]


def test_settings_are_frozen_when_the_sweep_begins(pair):
    folder = min((pair[1] / "sweeps").iterdir())
    assert (folder / "conf" / "config.yaml").is_file()
    assert "conf" in (folder / "multirun.yaml").read_text()


def start(outputs: Path, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "poolwise.run", *arguments],
        cwd=outputs.parent,
        env=os.environ | {"POOLWISE_OUTPUTS": str(outputs)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def wait_for_child(outputs: Path, number: int = 1) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if len(list((outputs / "runs").glob("*/state.json"))) >= number:
            return
        time.sleep(0.1)
    pytest.fail("no job began")


LONG = ("-m", "pooling=pooled,unpooled", "sampler.num_warmup=150", "plots=none", "sweep.compare=false")


@pytest.mark.slow
def test_a_killed_sweep_goes_on_where_it_was(command, outputs):
    arguments = (*LONG, "sampler.num_samples=30000", "sampler.checkpoint_every=100")
    process = start(outputs, *arguments)
    wait_for_child(outputs, number=2)
    process.kill()
    process.wait()
    done = command(*arguments)
    (parent,), children = split(outputs)
    assert done.returncode == 0, done.stderr
    assert parent.status == "FINISHED"
    assert [run.status for run in children] == ["FINISHED", "FINISHED"]  # the killed one went on in its own run
    assert len(digests(children)) == 2


@pytest.mark.process
def test_a_sweep_stopped_with_ctrl_c_leaves_nothing_running(outputs):
    process = start(outputs, *LONG, "sampler.num_samples=100000000")
    wait_for_child(outputs)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    (parent,), (child,) = split(outputs)
    assert (parent.status, child.status) == ("KILLED", "KILLED")


@pytest.mark.process
def test_the_same_sweep_twice_at_once_is_refused(command, outputs):
    arguments = (*LONG, "sampler.num_samples=100000000")
    process = start(outputs, *arguments)
    try:
        wait_for_child(outputs)
        done = command(*arguments)
        assert done.returncode == 1
        assert "is already running" in done.stderr
    finally:
        process.kill()
        process.wait()


def test_a_run_of_a_process_that_is_gone_is_ended_by_the_next_sweep(pair):
    outputs = pair[1]
    client = MlflowClient(uri_of(outputs))
    experiment = client.get_experiment_by_name("cookies").experiment_id
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    host = liveness.this_process().rpartition(":")[0]
    dead, alive = (
        client.create_run(experiment, tags={store.PROCESS: f"{host}:{pid}"}).info.run_id
        for pid in (child.pid, os.getpid())
    )
    assert again(pair, *PAIR).returncode == 0
    statuses = {run.run_id: run.status for run in logged(outputs)}
    assert (statuses[dead], statuses[alive]) == ("KILLED", "RUNNING")
    client.set_terminated(alive)


@pytest.mark.parametrize(("silence", "expected"), [(5, True), (600, False)])
def test_a_run_on_another_host_is_alive_while_it_says_so(silence, expected):
    tags = {store.PROCESS: "elsewhere:1", store.HEARTBEAT: f"{time.time() - silence:.0f}"}
    assert liveness.is_alive(store.Logged("id", "n", "e", "RUNNING", {}, {}, tags)) is expected


def test_a_run_that_version_0_1_left_running_is_ended(outputs):
    client = MlflowClient(uri_of(outputs))
    tags = {"run_key": "k", "process": "elsewhere:1", "heartbeat": f"{time.time() - 600:.0f}"}
    run_id = client.create_run(client.create_experiment("cookies"), tags=tags).info.run_id
    liveness.mark_dead_killed("cookies", uri=uri_of(outputs))
    assert client.get_run(run_id).info.status == "KILLED"


@pytest.mark.process
def test_two_processes_with_the_same_fit_make_it_once(outputs):
    arguments = ("pooling=pooled", *TINY, "reuse=true")
    processes = [start(outputs, *arguments) for _ in range(2)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    assert len(logged(outputs)) == 1


@pytest.mark.slow
def test_five_kills_at_random_moments_change_no_draw(command, outputs, tmp_path):
    arguments = ("-m", "pooling=pooled,unpooled,hierarchical", *TINY, "sweep.compare=false")
    undisturbed = tmp_path / "undisturbed" / "outputs"
    shutil.copytree(outputs, undisturbed)
    process = start(undisturbed, *arguments)
    assert process.wait(timeout=300) == 0
    moments = np.random.default_rng(1).uniform(2, 12, 5)  # seconds: from start-up to some jobs done
    for moment in moments:
        process = start(outputs, *arguments)
        time.sleep(moment)
        process.kill()
        process.wait()
    done = command(*arguments)
    assert done.returncode == 0, done.stderr
    parents, children = split(outputs)
    assert not [run for run in logged(outputs) if run.status == "RUNNING"]
    finished = [run.name for run in children if run.status == "FINISHED"]
    assert len(finished) == len(set(finished)) == 3
    assert digests(children) == digests(split(undisturbed)[1])
    assert parents[0].status == "FINISHED"


@pytest.mark.parametrize(("is_worker", "at_terminal"), [(True, True), (True, False), (False, True)])
def test_a_worker_at_the_terminal_of_its_sweep_prints_to_a_file_of_its_job(tmp_path, is_worker, at_terminal):
    script = f"""
import sys
from omegaconf import OmegaConf
from poolwise.sweeps import launch
carry, launch.AT_TERMINAL = launch.Carry(), {at_terminal}
carry.process += {is_worker}
carry.on_job_start(OmegaConf.create({{"hydra": {{"runtime": {{"output_dir": {str(tmp_path)!r}}}}}}}))
print("a line")
print("a warning", file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    file = tmp_path / launch.PRINTED
    printed = (done.stdout + done.stderr).splitlines()
    kept = sorted(file.read_text().splitlines()) if file.exists() else []
    assert (kept, printed) == (
        (["a line", "a warning"], []) if is_worker and at_terminal else ([], ["a line", "a warning"])
    )
