"""Logged runs to a comparison run: which runs take part, what is logged, what is printed, how it ends."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from candidates import candidate
from pictures import make_count_table, make_summary, make_tree
from poolwise import compare
from poolwise.comparison import pipeline
from poolwise.comparison import record as comparison_record
from poolwise.comparison.candidates import ComparisonError
from poolwise.comparison.ranking import compare as compare_candidates
from poolwise.comparison.record import record as record_of
from poolwise.errors import UnknownRunError
from poolwise.runs.artifacts import write_tree
from poolwise.tracking import run as tracking
from poolwise.tracking import store
from poolwise.tracking.credentials import given_uri
from poolwise.tracking.record import Record

ROOT = Path(__file__).resolve().parents[1]
ELPD = -2.0 - np.random.default_rng(0).exponential(1.0, 30)


@pytest.fixture
def uri(outputs: Path) -> str:
    return f"sqlite:///{outputs}/mlflow.db"


@pytest.fixture
def log(outputs, uri):
    """`log("hier-nb", behind=3.0)`: a finished fit as the pipeline leaves it, with a table of 30 rows.

    Each name is a model of its own, with a prior of this name.
    """

    def logged(
        name: str,
        *,
        behind=0.0,
        pooling="hierarchical",
        parent="",
        with_loo=True,
        with_draws=True,
        params=None,
        r_hat_max=1.0,
        elpd_loo_mcse=None,
        groups_out=None,
        first_count=0,
        **tags,
    ) -> str:
        tree = make_tree(pooling=pooling)
        record = Record(
            name=name,
            experiment=tags.pop("experiment", "cookies"),
            params={"pooling.name": pooling, "likelihood.name": "poisson", "prior.lam.name": name} | (params or {}),
            tags={"data_sha256": "d1", "verdict": "trusted"} | tags,
            metrics={"elpd_loo": ELPD.sum() - behind, "p_loo": 3.0, "pareto_k_max": 0.2, "r_hat_max": r_hat_max},
        )
        record.metrics |= {} if elpd_loo_mcse is None else {"elpd_loo_mcse": elpd_loo_mcse}
        record.metrics |= {} if groups_out is None else {"elpd_leave_group_out": sum(groups_out)}
        with tracking.logged_run(record, uri=uri, outputs=outputs, parent=parent) as run:
            if groups_out is not None:
                left_out = pd.DataFrame({"group": ["1", "2", "NA"], "elpd": groups_out, "mcse": 0.1, "suspect": False})
                run.write("tables/leave_group_out.csv", left_out.to_csv(index=False))
            cells = {
                "group": np.repeat(["1", "2", "NA"], 10),
                "exposure": 1.0,
                "count": [first_count, *range(1, 10)] + 2 * list(range(10)),
            }
            pointwise = pd.DataFrame(cells | {"multiplicity": 1, "elpd": ELPD - behind / 30, "pareto_k": 0.1})
            if with_loo:
                run.write("loo/pointwise.csv", pointwise.to_csv(index=False))
            run.write("tables/summary.csv", make_summary(tree).rename_axis("parameter").to_csv())
            run.write("tables/new_group.csv", make_count_table().to_csv(index=False))
            if with_draws:
                write_tree(tree, run.artifacts / "posterior" / "posterior.nc")
        return run.run_id

    return logged


@pytest.fixture
def compared(outputs, uri):
    """`compared(ids)`: the comparison of these runs, as the store has it."""

    def of(run_ids, **options):
        run_id = pipeline.compare_runs(pipeline.named(run_ids, uri=uri), uri=uri, outputs=outputs, **options)
        return store.logged(run_id, uri=uri)

    return of


def read(run: store.Logged, name: str, *, uri: str) -> pd.DataFrame:
    return pd.read_csv(store.artifact(run.run_id, name, uri=uri))


def test_a_comparison_is_a_run_with_tables_figures_and_links_to_its_members(log, compared, uri):
    ids = [log("hier-pois", behind=9.0), log("unpooled-pois", pooling="unpooled"), log("pooled-pois", pooling="pooled")]
    run = compared(ids)
    assert (run.name, run.experiment, run.status) == ("compare 3 runs", "cookies", "FINISHED")
    assert run.tags["kind"] == "comparison"
    assert run.tags["data_sha256"] == "d1"
    table = read(run, "tables/comparison.csv", uri=uri)
    assert run.tags["members"].split(",") == list(table["run_id"])
    assert set(table["run_id"]) == set(ids)
    assert table["name"].iloc[-1] == "hierarchical lam=hier-pois"
    differing = read(run, "tables/differing.csv", uri=uri)
    assert list(differing["key"]) == ["pooling.name", "prior.lam.name", "pooling.population"]  # of one model only
    assert list(differing.columns[1:]) == list(read(run, "tables/runs.csv", uri=uri)["name"])
    for name in ("elpd", "predictive", "forest", "shrinkage", "new_group"):
        assert store.artifact(run.run_id, f"figures/{name}.png", uri=uri).read_bytes()[:4] == b"\x89PNG"
    note = run.tags["mlflow.note.content"]
    assert all(f"(#/experiments/1/runs/{run_id}?workflowType=machine_learning)" in note for run_id in ids)
    assert note.startswith("- Best of 3 models by elpd_loo on 30 rows: ")
    assert "Neither are model probabilities" in note


def test_a_comparison_has_parameters_and_metrics_by_rank(log, compared):
    ids = [log("a"), log("b", behind=9.0), log("again", behind=9.1, params={"prior.lam.name": "b", "seed": "1"})]
    run = compared(ids)
    assert run.params == {"best_model": "lam=a", "best_run": ids[0], "prior.lam.name": "a, b"}
    assert {name: run.metrics[name] for name in ("num_models", "num_runs", "num_rows")} == {
        "num_models": 2,
        "num_runs": 3,
        "num_rows": 30,
    }
    assert run.metrics["elpd_diff/2"] == pytest.approx(-9.05)  # pooled over two runs of unknown error
    assert run.metrics["p_worse/2"] == pytest.approx(1.0)
    assert "p_worse/1" not in run.metrics  # of the best: nothing to compare with


def test_seeds_of_one_model_are_compared_and_not_ranked(log, compared, uri, capsys):
    params = {"prior.lam.name": "same"}
    ids = [
        log(f"seed={seed}", behind=0.01 * seed, params=params | {"seed": str(seed)}, elpd_loo_mcse=0.01 * seed)
        for seed in (2, 1)
    ]
    capsys.readouterr()
    run = compared(ids)
    assert "The 2 runs are one model, so there is nothing to rank. They differ in seed" in capsys.readouterr().out
    assert run.params["best_run"] == "none"
    page = store.artifact(run.run_id, "comparison.html", uri=uri).read_text()
    assert "Do 2 runs of one model agree?" in page
    assert list(read(run, "tables/runs.csv", uri=uri)["seed"]) == [1, 2]  # the smaller Monte Carlo error first


def test_the_model_check_is_read_and_a_failed_one_is_not_best(log, compared, uri):
    ids = [log("a", model_check="failed"), log("b", behind=9.0, model_check="passed"), log("c", behind=10.0)]
    run = compared(ids)
    assert list(read(run, "tables/comparison.csv", uri=uri)["model_check"]) == ["failed", "passed", "not checked"]
    assert run.params["best_run"] == ids[1]
    assert "it fails its model check" in run.tags["mlflow.note.content"]


def test_a_model_that_this_version_does_not_know_is_ranked_and_said_to_be_without_figures(log, compared, uri):
    ids = [log("a"), log("b", behind=9.0, params={"pooling.name": "kinship"}), log("c", behind=10.0)]
    run = compared(ids)
    assert set(read(run, "tables/comparison.csv", uri=uri)["run_id"]) == set(ids)
    told = f"Without figures: b ({ids[1]}), because this version does not know pooling.name=kinship."
    assert told in run.tags["mlflow.note.content"]


def test_groups_left_out_by_all_runs_are_ranked(log, compared, uri):
    ids = [log("a", groups_out=[-30.0, -20.0, -25.0]), log("b", behind=9.0, groups_out=[-28.0, -19.0, -20.0])]
    run = compared(ids)
    assert list(read(run, "tables/comparison_by_groups.csv", uri=uri)["run_id"]) == ids[::-1]
    assert "For a group that is not in the data: best of 2 models" in run.tags["mlflow.note.content"]
    page = store.artifact(run.run_id, "comparison.html", uri=uri).read_text()
    assert "By groups left out" in page


def test_runs_of_the_version_that_said_rates_have_the_key_of_this_one(log, compared, uri):
    ids = [
        log("then", params={"pooling.rates": "integrated", "prior.lam.name": "same"}),
        log("now", behind=1.0, params={"pooling.parameterisation": "marginal", "prior.lam.name": "same"}),
        log("other", behind=2.0, params={"pooling.parameterisation": "centred", "prior.lam.name": "same"}),
    ]
    differing = read(compared(ids), "tables/differing.csv", uri=uri).set_index("key")
    assert list(differing.index) == ["pooling.parameterisation"]
    assert dict(differing.loc["pooling.parameterisation"]) == {
        "then": "marginal",
        "now": "marginal",
        "other": "centred",
    }


def test_a_comparison_does_not_show_up_among_the_ranked_runs(log, compared, uri):
    run = compared([log("a"), log("b", behind=1.0)])
    assert "elpd_loo" not in run.metrics
    assert run.run_id not in {each.run_id for each in store.search("metrics.elpd_loo < 0", uri=uri)}


def test_the_page_holds_words_captions_and_every_picture_in_itself(log, compared, uri):
    run = compared([log("a <b>"), log("b", behind=9.0)])
    page = store.artifact(run.run_id, "comparison.html", uri=uri).read_text()
    assert "a &lt;b&gt;" in page
    assert "<b>" not in page
    assert page.count('src="data:image/png;base64,') == 4
    assert page.count("src=") == 4
    assert "The models differ most on" in page
    assert page.count("<summary>How to read this figure</summary>") == 4
    assert "Look for groups on which the models disagree" in page
    assert "No figure shrinkage: it needs" in page


def test_a_comparison_of_a_sweep_is_a_child_of_it(log, compared, outputs, uri):
    ids = [log("a"), log("b")]
    with tracking.logged_run(Record("sweep", "cookies", {}, {"kind": "sweep"}), uri=uri, outputs=outputs) as parent:
        run = compared(ids, parent=parent.run_id)
    assert run.parent == parent.run_id


def test_the_experiment_is_that_of_the_first_run(log, compared):
    ids = [log("a", experiment="first"), log("b", experiment="second")]
    run = compared(ids)
    assert run.experiment == "first"
    assert ids[0] in run.tags["mlflow.note.content"]
    assert ids[1] not in run.tags["mlflow.note.content"]  # a link into another experiment would lead nowhere


def test_runs_that_cannot_take_part_are_named_and_left_out(log, compared, uri, capsys):
    unfinished = MlflowClient(uri).create_run("0", run_name="half").info.run_id
    ids = [log("a"), log("b", behind=9.0), log("bare", with_loo=False), unfinished]
    run = compared(ids)
    assert set(run.tags["members"].split(",")) == set(ids[:2])
    printed = capsys.readouterr().out.splitlines()
    assert printed[:2] == [
        f"left out: bare ({ids[2]}) has no loo/pointwise.csv",
        f"left out: half ({unfinished}) is RUNNING",
    ]
    assert f"Left out: half ({unfinished}) is RUNNING." in run.tags["mlflow.note.content"]


def test_a_comparison_among_the_runs_is_left_out(log, compared, capsys):
    ids = [log("a"), log("b")]
    first = compared(ids)
    capsys.readouterr()
    again = compared([first.run_id, *ids])
    assert set(again.tags["members"].split(",")) == set(ids)
    assert f"left out: compare 2 runs ({first.run_id}) is a comparison\n" in capsys.readouterr().out


def test_a_comparison_without_draws_has_the_other_figures(log, compared, uri):
    run = compared([log("a", with_draws=False), log("b", with_draws=False)])
    page = store.artifact(run.run_id, "comparison.html", uri=uri).read_text()
    assert "No figure forest: it needs the stored draws of at least one run." in page
    assert page.count("<img") == 2


def test_runs_that_the_same_code_compared_before_are_not_compared_again(log, compared, uri, capsys):
    ids = [log("a"), log("b", behind=9.0)]
    first = compared(ids)
    capsys.readouterr()
    assert compared(ids[::-1]).run_id == first.run_id
    assert len(store.search("tags.kind = 'comparison'", uri=uri)) == 1
    printed = capsys.readouterr().out.splitlines()
    assert any(line.startswith("Best of 2 models") for line in printed)
    assert printed[-1] == f"run     {first.run_id}, reused: the same code compared these runs before"


def test_runs_are_compared_again_with_another_run_or_by_other_code(log, compared, uri, monkeypatch):
    ids = [log("a"), log("b")]
    found = {compared(ids).run_id, compared([*ids, log("c")]).run_id}
    monkeypatch.setattr(comparison_record, "source_digest", lambda folder: "other code")
    assert len(found | {compared(ids).run_id}) == 3


def test_runs_may_be_named_by_the_beginnings_of_their_ids(log, uri):
    ids = [log("a"), log("b")]
    assert [run.run_id for run in pipeline.named([each[:12] for each in ids], uri=uri)] == ids
    assert len(pipeline.named([ids[0], ids[0][:12]], uri=uri)) == 1


def test_runs_on_other_data_are_refused_and_nothing_is_logged(log, compared, uri):
    ids = [log("a"), log("b", data_sha256="d2", first_count=10)]
    MlflowClient(uri).log_param(ids[0], "data.name", "cookies")
    with pytest.raises(
        ComparisonError, match=rf"cookies with 30 rows and a total count of 135: a \({ids[0]}\); a table"
    ):
        compared(ids)
    assert len(store.search("", uri=uri)) == 2


def test_the_table_the_words_and_the_run_id_are_printed(log, compared, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    run = compared([log("a"), log("b " + "long " * 40, behind=9.0)])
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split()[:3] == ["#", "lam", "elpd_loo"] and " diff " in printed[0]
    assert any(line.startswith("Best of 2 models") for line in printed)
    assert f"run     {run.run_id}" in printed
    assert all(len(line) <= 80 for line in printed if not line.startswith(("folder", "page")))  # a path, an address


def test_runs_of_a_sweep_are_its_children_and_those_it_reused(log, outputs, uri):
    reused = log("reused")
    tags = {"kind": "sweep", "members": reused}
    with tracking.logged_run(Record("sweep", "cookies", {}, tags), uri=uri, outputs=outputs) as parent:
        child = log("child", parent=parent.run_id)
        comparison = log("compare 2 runs", parent=parent.run_id, kind="comparison")
    found = [run.run_id for run in pipeline.of_sweep(parent.run_id, uri=uri)]
    assert found == [child, reused]
    assert comparison not in found


def test_a_run_that_is_no_sweep_is_refused(log, uri):
    run_id = log("a")
    with pytest.raises(UnknownRunError, match=rf"run {run_id} \(a\) has no runs of its own"):
        pipeline.of_sweep(run_id, uri=uri)


def test_a_filter_finds_fits_of_every_experiment_or_of_one(log, uri):
    ids = [log("a", experiment="first"), log("b", experiment="second", params={"seed": "3"})]
    log("sweep", kind="sweep")
    log("compare 2 runs", kind="comparison")
    assert {run.run_id for run in pipeline.matching("metrics.elpd_loo < 0", uri=uri)} == set(ids)
    assert [run.run_id for run in pipeline.matching("", uri=uri, experiment="first")] == ids[:1]
    assert [run.run_id for run in pipeline.matching("params.seed = '3'", uri=uri)] == ids[1:]


def test_a_filter_that_finds_nothing_is_refused(log, uri):
    log("a")
    with pytest.raises(UnknownRunError, match=r"no run in experiment other matches 'params\.seed = \"1\"'"):
        pipeline.matching('params.seed = "1"', uri=uri, experiment="other")


def test_many_members_are_cut_at_a_whole_id():
    ids = [f"{k:032x}" for k in range(400)]
    found = compare_candidates([candidate("a", ELPD), candidate("b", ELPD)])
    found = replace(found, runs=pd.DataFrame({"run_id": ids}))
    tag = record_of(found, experiment="cookies", data_sha256="d1").tags["members"]
    assert len(tag) <= tracking.TAG_LIMIT
    assert tag.split(",") == ids[: len(tag.split(","))]


def test_the_command_compares_and_ends_as_the_contract_says(log, command):
    ids = [log("a"), log("b")]
    done = command(*ids, module="poolwise.compare")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Tie with lam=a: lam=b (" in done.stdout
    wrong = command("nonesuch", ids[0], module="poolwise.compare")
    assert wrong.returncode == 2
    assert "UnknownRunError: " in wrong.stderr
    assert "Traceback" not in wrong.stderr


@pytest.mark.parametrize(
    "arguments", [[], ["a", "--sweep", "b"], ["--sweep", "a", "--filter", "b"], ["a", "b", "--experiment", "c"]]
)
def test_runs_must_be_named_in_exactly_one_way(arguments, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["compare", *arguments])
    with pytest.raises(SystemExit) as ended:
        compare.cli()
    assert ended.value.code == 2
    assert "--" in capsys.readouterr().err.splitlines()[-1]


def test_a_password_in_the_address_goes_to_the_environment(monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "")
    assert given_uri("https://me:secret@host/path") == "https://host/path"
    assert given_uri(None) is None


@pytest.mark.process
def test_the_filter_of_the_docs_works_as_it_is_pasted(log, outputs):
    page = (ROOT / "docs" / "comparing.md").read_text()
    (line,) = re.findall(r"^python -m poolwise\.compare --filter .*$", page, re.M)
    for name in ("a", "b"):
        log(name, behind=float(name == "b"), r_hat_max=1.001)
    other = log("c", r_hat_max=1.5)
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Best of 2 models" in done.stdout
    assert other[:8] not in done.stdout
