"""A record to MLflow: what arrives, how runs end, and several processes at one store."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from poolwise.errors import TrackingError, UnknownRunError
from poolwise.tracking import files, store
from poolwise.tracking import run as tracking
from poolwise.tracking.locks import exclusive_lock
from poolwise.tracking.record import Record


def record(**changes) -> Record:
    base = {
        "name": "hier-nb quick",
        "experiment": "cookies",
        "params": {"seed": 0, "data.path": "x" * 7000},
        "tags": {"draws_fingerprint": "0123456789abcdef"},
        "dataset": {"name": "cookies", "digest": "b193690a", "source": "data/cookies.csv"},
    }
    return Record(**(base | changes))


@pytest.fixture
def uri(outputs: Path) -> str:
    return f"sqlite:///{outputs}/mlflow.db"


def logged(outputs: Path, uri: str, what: Record, inside=lambda run: None) -> tracking.Run:
    with tracking.logged_run(what, uri=uri, outputs=outputs) as run:
        inside(run)
    return run


def test_a_finished_run_has_its_parameters_metrics_tags_and_dataset(outputs, uri):
    what = record(metrics={"elpd_loo": -394.25}, note="**good**")
    run = logged(outputs, uri, what)
    stored = MlflowClient(uri).get_run(run.run_id)
    assert stored.info.status == "FINISHED"
    assert stored.info.run_name == "hier-nb quick"
    assert stored.data.params["seed"] == "0"
    assert stored.data.metrics == {"elpd_loo": -394.25}
    assert stored.data.tags["mlflow.note.content"] == "**good**"
    assert stored.inputs.dataset_inputs[0].dataset.digest == "b193690a"


def test_an_over_long_parameter_is_cut_before_mlflow_does(outputs, uri):
    run = logged(outputs, uri, record())
    assert len(MlflowClient(uri).get_run(run.run_id).data.params["data.path"]) == tracking.PARAM_LIMIT


def test_more_than_a_hundred_parameters_are_all_logged(outputs, uri):
    run = logged(outputs, uri, record(params={f"p{i}": i for i in range(250)}))
    assert len(MlflowClient(uri).get_run(run.run_id).data.params) == 250


def test_artifacts_arrive_as_they_lie_in_the_folder(outputs, uri):
    run = logged(outputs, uri, record(), lambda run: run.write("tables/summary.csv", "a,b\n1,2\n"))
    assert store.artifact(run.run_id, "tables/summary.csv", uri=uri).read_text() == "a,b\n1,2\n"


def test_a_file_is_stored_once_on_one_disk(outputs, uri):
    run = logged(outputs, uri, record(), lambda run: run.write("tables/summary.csv", "mean\n1.5\n"))
    kept = store.artifact(run.run_id, "tables/summary.csv", uri=uri)
    assert kept.samefile(run.artifacts / "tables" / "summary.csv") and kept != run.artifacts / "tables" / "summary.csv"
    run.write("tables/summary.csv", "changed")
    assert kept.read_text() == "mean\n1.5\n"


def test_a_file_is_copied_where_no_link_can_be_made(outputs, uri, monkeypatch):
    def refused(source, target):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(files.os, "link", refused)
    run = logged(outputs, uri, record(), lambda run: run.write("tables/summary.csv", "mean\n1.5\n"))
    kept = store.artifact(run.run_id, "tables/summary.csv", uri=uri)
    assert kept.read_text() == "mean\n1.5\n" and not kept.samefile(run.artifacts / "tables" / "summary.csv")


def test_progress_is_kept_as_a_metric_history(outputs, uri):
    def inside(run):
        run.progress(4000, {"progress/r_hat_max": 1.02})
        run.progress(8000, {"progress/r_hat_max": 1.01})

    run = logged(outputs, uri, record(), inside)
    history = MlflowClient(uri).get_metric_history(run.run_id, "progress/r_hat_max")
    assert [(each.step, each.value) for each in history] == [(4000, 1.02), (8000, 1.01)]


def test_the_folder_holds_the_record_of_the_run(outputs, uri):
    run = logged(outputs, uri, record(metrics={"p_loo": 5.8}))
    stored = json.loads((run.folder / "record.json").read_text())
    assert (stored["status"], stored["metrics"]) == ("FINISHED", {"p_loo": 5.8})


def test_the_folder_is_named_for_run_draws_and_id(outputs, uri):
    run = logged(outputs, uri, record())
    assert run.folder.name == f"hier-nb-quick-01234567-{run.run_id[:6]}"


def fail(error):
    def inside(run):
        raise error

    return inside


def ended(outputs, uri, error):
    with pytest.raises(type(error)):
        logged(outputs, uri, record(), fail(error))
    client = MlflowClient(uri)
    return client.search_runs([client.get_experiment_by_name("cookies").experiment_id])[0]


def test_a_run_that_raises_is_failed_with_its_traceback(outputs, uri):
    stored = ended(outputs, uri, ValueError("no luck"))
    assert (stored.info.status, stored.data.tags["verdict"]) == ("FAILED", "failed")
    assert stored.data.tags["verdict_reasons"] == "no luck"
    text = store.artifact(stored.info.run_id, "failure/traceback.txt", uri=uri).read_text()
    assert "ValueError: no luck" in text


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(143)], ids=["Ctrl-C", "SIGTERM"])
def test_a_run_stopped_from_outside_is_killed(outputs, uri, error):
    assert ended(outputs, uri, error).info.status == "KILLED"


def test_a_run_holds_its_folder_while_it_lives(outputs, uri):
    def inside(run):
        with (
            pytest.raises(TrackingError, match="in use"),
            exclusive_lock(run.folder / "lock", otherwise=TrackingError("in use")),
        ):
            pass

    run = logged(outputs, uri, record(), inside)
    with exclusive_lock(run.folder / "lock", otherwise=TrackingError("in use")):  # and lets go of it
        pass


def test_two_runs_of_the_same_name_and_second_do_not_meet(outputs, uri):
    folders = []

    def inside(run):
        folders.append(run.folder)
        if len(folders) == 1:
            folders.append(logged(outputs, uri, record(), inside).folder)

    logged(outputs, uri, record(), inside)
    assert len(set(folders)) == 2


def test_artifacts_lie_beside_the_store_whatever_the_working_directory(outputs, uri, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    run = logged(outputs, uri, record(), lambda run: run.write("a.txt", "a"))
    assert (outputs / "artifacts" / "cookies" / run.run_id / "artifacts" / "a.txt").is_file()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_an_experiment_in_the_bin_is_refused_with_the_remedy(outputs, uri):
    run = logged(outputs, uri, record())
    MlflowClient(uri).delete_experiment(run.experiment_id)
    with pytest.raises(TrackingError, match=r"is deleted in .*Restore it"):
        logged(outputs, uri, record())


def test_an_unknown_run_is_refused_with_the_store_it_is_not_in(uri):
    with pytest.raises(UnknownRunError, match=r"run nonesuch in sqlite:.*has no posterior"):
        store.artifact("nonesuch", "posterior/posterior.nc", uri=uri)


def test_ranked_pages_name_only_experiments_with_runs(outputs, uri):
    run = logged(outputs, uri, record())
    pages = store.ranked_pages(uri)
    assert list(pages) == ["cookies"]
    assert f"experiments/{run.experiment_id}/runs" in pages["cookies"]


@pytest.mark.slow
def test_eight_processes_can_make_one_store_at_once(tmp_path):
    script = (
        "import sys; from pathlib import Path; from poolwise.tracking.record import Record\n"
        "from poolwise.tracking import run as tracking\n"
        "out = Path(sys.argv[1]); data = {'name': 'd', 'digest': 'd', 'source': 'd'}\n"
        "what = Record('n', 'e', {}, {'draws_fingerprint': '0' * 8}, data)\n"
        "with tracking.logged_run(what, uri=f'sqlite:///{out}/mlflow.db', outputs=out) as run: run.write('a', 'a')\n"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stderr=subprocess.PIPE, text=True)
        for _ in range(8)
    ]
    errors = [process.communicate(timeout=300)[1] for process in started]
    assert [process.returncode for process in started] == [0] * 8, errors
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("e").experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"] * 8


def test_write_whole_leaves_no_half_of_a_file(tmp_path, monkeypatch):
    tracking.write_whole(tmp_path / "a.txt", "before")
    monkeypatch.setattr(Path, "write_bytes", lambda self, content: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        tracking.write_whole(tmp_path / "a.txt", "after")
    assert (tmp_path / "a.txt").read_text() == "before"


@pytest.mark.parametrize(("length", "expected"), [(20, 20), (8000, 8000), (9000, 8000)])
def test_cut_keeps_within_the_limit(length, expected):
    assert len(tracking.cut("x" * length, 8000)) == expected
