"""The bench: it times no wrong answer, names every peer without a number, and reports limits that were reached."""

import csv
import io
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

from bench import engines, runs, sizes, stages, sweep, variants
from bench.base import Curves, Part, Result, Settings, Table
from bench.engines import Measured
from bench.judge import LIMITS, least_effective, refusal
from bench.picture import picture
from bench.runs import Run
from bench.samplers import SAMPLERS, Sampler
from exact_reference import recorded
from poolwise.counts.cells import read_counts
from support import ROOT, every_variant

EXACT = recorded("hierarchical", "poisson")
SETTINGS = Settings(rounds=1, most=1000, seconds=300, megabytes=6000, patience=60, scratch=Path())


def independent(seed: int) -> dict[str, np.ndarray]:
    """Normal draws with the exact means and standard deviations, 4 x 1000, one after another independent."""
    rng = np.random.default_rng(seed)
    return {
        site: mean + EXACT.sd[site] * rng.standard_normal((4, 1000, *np.shape(mean)))
        for site, mean in EXACT.mean.items()
    }


def shifted(seed: int) -> dict[str, np.ndarray]:
    """The same with mu off by a fifth of its standard deviation, 12.6 of its Monte Carlo errors."""
    return independent(seed) | {"mu": independent(seed)["mu"] + 0.2 * EXACT.sd["mu"]}


def absent(problem):
    import no_such_sampler  # noqa: F401


RIGHT = Sampler("right", "numpy", "", lambda problem: independent)
WRONG = Sampler("wrong", "numpy", "", lambda problem: shifted)
ABSENT = Sampler("absent", "no-such-sampler", "", absent)


def test_right_draws_are_not_refused():
    assert refusal(independent(1), EXACT) == ""


def test_a_wrong_mean_is_refused_with_its_distance():
    found = refusal(shifted(1), EXACT)
    assert found.startswith("wrong answer: mean of mu is 1")  # 12.6 expected, give or take one
    assert f"(limit {LIMITS['mean']:g})" in found


def test_a_wrong_standard_deviation_is_refused():
    draws = independent(1)
    wide = EXACT.mean["sigma"] + 1.2 * (draws["sigma"] - EXACT.mean["sigma"])
    assert "sd of sigma" in refusal(draws | {"sigma": wide}, EXACT)


def test_draws_of_one_group_alone_are_refused():
    draws = independent(1)
    draws["lam"][..., 3] += EXACT.sd["lam"][3]
    assert "mean of lam" in refusal(draws, EXACT)


def test_a_missing_parameter_is_refused():
    assert refusal({"mu": independent(1)["mu"]}, EXACT) == "wrong answer: no draws of lam, sigma"


def test_draws_that_are_not_finite_are_refused():
    draws = independent(1)
    draws["mu"][0, 0] = np.inf
    assert "not finite" in refusal(draws, EXACT)


def test_the_least_effective_parameter_counts():
    draws = independent(1)
    draws["sigma"] = np.repeat(draws["sigma"][:, ::10], 10, axis=1)  # each draw ten times: 400 of 4000
    assert 300 < least_effective(draws, EXACT) < 550


def test_a_sampler_with_a_wrong_answer_has_no_seconds():
    assert engines.begin(RIGHT, "poisson")[0] == ""
    problem, effective, _ = engines.begin(WRONG, "poisson")
    assert problem.startswith("wrong answer")
    assert effective == 0


def test_a_later_wrong_answer_takes_the_number_away():
    measured = Measured(RIGHT, [4000.0], [1.0])
    assert measured.rate == 4000
    measured.add(("wrong answer: mean of mu", 0.0, 1.0))
    assert measured.rate is None


@pytest.mark.parametrize(("name", "module"), [("nutpie", "nutpie"), ("pystan", "stan")])
def test_a_peer_that_does_not_import_is_named_with_the_reason(name, module):
    sampler = next(each for each in SAMPLERS if each.name == name)
    with patch.dict(sys.modules, {module: None}):
        problem = engines.begin(sampler, "poisson")[0]
    found = [Measured(replace(RIGHT, name="nuts"), [1.0], [1.0]), Measured(sampler, problem=problem)]
    assert problem.startswith("not installed: ")
    assert module in problem
    assert any(line.startswith(name) and problem in line for line in engines.table_of(found, "poisson").lines())
    assert f"{name} has no number for poisson: {problem}" in engines.remarks_of(found, "poisson")


def test_ratios_are_to_nuts_and_to_the_best_peer():
    own = [Sampler(name, "poolwise", "", RIGHT.prepare) for name in ("exact", "nuts")]
    peers = [replace(RIGHT, name=name) for name in ("slow", "fast")]
    rates = (800.0, 200.0, 50.0, 100.0)
    found = [Measured(each, [rate], [1.0]) for each, rate in zip([*own, *peers], rates, strict=True)]
    table = engines.table_of(found, "poisson")
    assert [row[table.columns.index("x nuts")] for row in table.rows] == [4.0, 1.0, 0.5, 0.25]
    assert engines.remarks_of(found, "poisson") == ["poisson: against the best peer, fast: exact 8.00 x, nuts 2.00 x"]


def prepare_right(problem):
    return independent


def prepare_wrong(problem):
    return shifted


@pytest.mark.process
def test_samplers_in_their_processes_are_measured_refused_or_named():
    asked = [replace(RIGHT, prepare=prepare_right), replace(WRONG, prepare=prepare_wrong), ABSENT]
    right, wrong, missing = engines.side_by_side(asked, "poisson", replace(SETTINGS, rounds=2))
    assert len(right.rates) == 2
    assert wrong.problem.startswith("wrong answer: mean of mu")
    assert missing.problem == "not installed: No module named 'no_such_sampler'"
    assert (wrong.rate, missing.rate) == (None, None)


def test_a_table_has_a_cell_for_every_value_and_csv_in_full():
    table = Table("t", "Title", ("what", "seconds"), [("one", 1 / 3), ("two", None)])
    assert table.lines() == ["Title", "what  seconds", "one     0.333", "two         -"]
    assert list(csv.reader(io.StringIO(table.csv()))) == [["what", "seconds"], ["one", str(1 / 3)], ["two", ""]]


def test_curves_become_a_picture():
    drawn = picture(Curves("c", "Title", "rows", "seconds", {"one": [(10.0, 1.0), (1000.0, 2.0)], "none": []}))
    assert drawn.startswith(b"\x89PNG")


def test_a_process_beyond_its_time_is_ended_and_reported():
    found = runs.process(("-c", "import time; time.sleep(60)"), replace(SETTINGS, seconds=0.5))
    assert found.problem == "over 0.5 s"
    assert found.seconds < 60


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="the system does not say how much memory is resident"
)
def test_a_process_beyond_its_memory_is_ended_and_reported():
    code = "import time; kept = bytearray(b'x' * 300_000_000); time.sleep(60)"
    found = runs.process(("-c", code), replace(SETTINGS, megabytes=200))
    assert found.problem == "over 200 MB"
    assert found.megabytes > 200


def test_a_process_that_fails_is_reported_with_its_last_line():
    found = runs.process(("-c", "print('first'); raise SystemExit('the reason')"), SETTINGS)
    assert found.problem == "exit code 1: the reason"


def test_the_first_run_of_a_case_is_dropped_and_a_slow_case_is_measured_once():
    settings = replace(SETTINGS, rounds=3, patience=10.0)
    fast = runs.repeated(lambda seed: Run(100.0 if seed == 9 else float(seed), 1.0), settings)
    slow = runs.repeated(lambda seed: Run(11.0 + seed, 1.0), settings)
    assert [run.seconds for run in fast] == [1, 2, 3]
    assert [run.seconds for run in slow] == [12]


def test_a_case_beyond_the_limits_is_in_the_table_and_has_no_number():
    found = [(10, [Run(1.0, 1.0)], [Run(2.0, 1.0)]), (100, [Run(600.0, 1.0, problem="over 600 s")], [])]
    table = sizes.table_of("rows", "Title", "rows", found)
    small, large = (dict(zip(table.columns, row, strict=True)) for row in table.rows)
    assert (small["x default"], small["rounds"]) == (0.5, "1")
    assert (large["seconds"], large["note"]) == (None, "over 600 s")
    assert list(sizes.metrics_of("rows", found)) == ["seconds/rows.10", "megabytes/rows.10"]


def test_a_simulated_table_has_the_groups_and_rows_that_were_asked_for(tmp_path):
    counts = read_counts(sizes.simulate(7, 30, folder=tmp_path), group="group", count="count")
    assert (counts.num_groups, counts.num_rows) == (7, 210)


LOGGED = {"seconds/read": 0.5, "seconds/sample": 0.1, "programs/compiled": 0.0, "programs/loaded": 9.0}
FINISHED = Run(2.0, 500.0, verdict=1.0, logged=[LOGGED] * 6)


def test_sizes_grow_until_one_does_not_finish_and_stand_beside_default_runs(tmp_path):
    def poolwise(*arguments, outputs, settings):
        is_large = any("x5.csv" in each and "/1000x" in each and "exact" in " ".join(arguments) for each in arguments)
        return replace(FINISHED, problem="over 300 s") if is_large else FINISHED

    with patch.object(runs, "poolwise", poolwise):
        result = sizes.groups(replace(SETTINGS, scratch=tmp_path, most=10_000))
    notes = {table.name: [row[-1] for row in table.rows] for table in result.tables}
    assert notes["groups_exact_5"] == ["", "", "over 300 s"]  # 10, 100, 1000; 10,000 is left out
    assert notes["groups_exact_1"] == [""] * 4
    first = dict(zip(result.tables[0].columns, result.tables[0].rows[0], strict=True))
    assert (first["x default"], first["less reading"], first["MB"]) == (1.0, 0.75, 500.0)
    assert result.metrics["seconds/groups_exact_1.10000"] == 2.0
    assert list(tmp_path.glob("*.csv")) == []


def test_the_sweep_is_compared_per_model_and_its_programs_by_job(tmp_path):
    with (
        patch.object(runs, "poolwise", lambda *arguments, **settings: FINISHED),
        patch.object(runs, "process", lambda *arguments, **settings: Run(4.0, 300.0)),
    ):
        result = sweep.measure(replace(SETTINGS, scratch=tmp_path))
    assert result.remarks == ("sweep against the notebook, per model: 0.25 x",)  # 2 s for six, 4 s for three
    assert result.metrics["seconds/sweep.sweep.six_variants.warm"] == 2.0
    assert [row[1:] for row in result.tables[1].rows] == [(0.0, 9.0, 0.0, 9.0)] * 6


def test_a_variant_is_measured_by_its_worst_parameter():
    rng = np.random.default_rng(1)
    independent, walk = rng.standard_normal((2, 4, 500))
    effective, r_hat = variants.mixing({"a": independent, "b": walk.cumsum(axis=1)})
    assert effective < 50 and r_hat > 1.05
    assert variants.mixing({"a": independent})[0] > 1000


def test_every_variant_has_a_row_of_medians():
    chosen = [(name, model) for name, model in every_variant() if name == "poisson pooled centred"]
    with patch("support.every_variant", lambda: iter(chosen)):
        [row] = variants.rows_of(read_counts(ROOT / "data" / "cookies.csv", group="location", count="chips"), rounds=3)
    found = dict(zip(variants.COLUMNS, row, strict=True))
    assert found["variant"] == "poisson pooled centred"
    assert 0 < found["lowest"] <= found["ESS/s"] <= found["highest"]
    assert found["largest R-hat"] < 1.01 and found["diverged"] == 0


def test_the_stages_have_a_column_for_every_kind_of_run(tmp_path):
    def poolwise(*arguments, outputs, settings):
        outputs.mkdir(exist_ok=True)
        return FINISHED

    with (
        patch.object(runs, "poolwise", poolwise),
        patch.object(runs, "process", lambda *arguments, **settings: Run(0.5, 300.0)),
    ):
        result = stages.measure(replace(SETTINGS, scratch=tmp_path))
    table = {row[0]: row[1:] for row in result.tables[0].rows}
    assert (table["seconds/read"], table["process"], table["verdict printed after"]) == (
        (0.5,) * 4,
        (2.0,) * 4,
        (1.0,) * 4,
    )
    assert result.tables[1].rows == [("import jax", 0.5), ("--help", 0.5)]


@pytest.mark.fit
def test_a_part_is_printed_and_logged_with_tables_figures_and_the_machine(outputs, capsys):
    from bench import __main__ as command  # here: the processes of samplers import this file, and need no store
    from poolwise.tracking import store

    table = Table("t", "Title", ("what", "seconds"), [("one", 0.25)])
    curves = Curves("c", "Title", "rows", "seconds", {"one": [(10.0, 1.0), (100.0, 2.0)]})
    part = Part("small", "a question", lambda settings: Result((table,), (curves,), {"seconds/one": 0.25}, ("Said.",)))
    with patch.object(command, "PARTS", (part,)):
        command.main(["small", "--rounds", "2"])
    said = capsys.readouterr().out
    assert "one     0.250" in said
    assert "Said." in said
    (logged,) = store.search(uri=f"sqlite:///{outputs / 'mlflow.db'}", experiments=["bench"])
    assert logged.metrics["seconds/one"] == 0.25
    assert logged.params["rounds"] == "2"
    assert {"cores", "cpu", "versions"} <= logged.params.keys()
    folder = next((outputs / "runs").iterdir())
    assert sorted(path.name for path in folder.rglob("*.[cp][sn][vg]")) == ["c.png", "t.csv"]
