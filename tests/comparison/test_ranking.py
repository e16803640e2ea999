"""Pointwise values to a ranking: ArviZ and plain rows as second routes, the refusals, and the words."""

import re
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from arviz_stats.loo import compare as arviz_compare
from arviz_stats.utils import ELPDDataLOO
from hypothesis import given, settings
from hypothesis import strategies as st

from poolwise.comparison import ranking
from poolwise.comparison.ranking import (
    Candidate,
    ComparisonError,
    compare,
    is_tie,
    markdown,
    read_pointwise,
    telling,
    text,
)

NUM_CELLS = 40
MULTIPLICITY = np.random.default_rng(3).integers(1, 6, NUM_CELLS)  # 120 rows or so


def pointwise(elpd, multiplicity=MULTIPLICITY) -> pd.DataFrame:
    number = np.arange(len(elpd))
    return pd.DataFrame(
        {
            "group": [f"{n % 3}" for n in number],
            "exposure": 1.0,
            "count": number,
            "multiplicity": multiplicity[: len(elpd)],
            "elpd": elpd,
            "pareto_k": 0.1,
        }
    )


def candidate(name: str, elpd, *, run_id: str | None = None, verdict: str = "trusted", **changes) -> Candidate:
    base = Candidate(run_id or f"id-of-{name}", name, "d1", verdict, {"seed": "0"}, 2.0, 0.3, pointwise(elpd))
    return replace(base, **changes)


def noisy(num_runs: int, *, seed: int = 0, spread: float = 0.2) -> np.ndarray:
    """Elpd of the cells by run, (C, K): rows differ much, runs little, as in real comparisons."""
    rng = np.random.default_rng(seed)
    return -2.5 - rng.exponential(1.0, (NUM_CELLS, 1)) + rng.normal(0, spread, (NUM_CELLS, num_runs))


def candidates(values: np.ndarray, **changes) -> list[Candidate]:
    return [candidate(f"m{k}", values[:, k], **changes) for k in range(values.shape[1])]


def shifted(*differences: float, **changes) -> list[Candidate]:
    """Runs m0, m1, ... whose elpd_loo differ from the first's by so much, each with a small error."""
    base, num_rows = noisy(1)[:, 0], MULTIPLICITY.sum()
    return candidates(np.stack([base + each / num_rows for each in (0.0, *differences)], axis=1), **changes)


def arviz_of(runs: list[Candidate], method: str) -> pd.DataFrame:
    """A second route: what ArviZ says of the rows, called as its manual shows."""
    rows = {run.name: np.repeat(run.pointwise["elpd"], run.pointwise["multiplicity"]).to_numpy() for run in runs}
    results = {
        name: ELPDDataLOO(
            elpd=each.sum(),
            se=np.sqrt(len(each) * each.var(ddof=1)),
            p=2.0,
            n_samples=1000,
            n_data_points=len(each),
            scale="log",
            warning=False,
            good_k=0.7,
            elpd_i=xr.DataArray(each, dims="row"),
        )
        for name, each in rows.items()
    }
    return arviz_compare(results, method=method, round_to="none")


@pytest.fixture(params=["rows", "cells"])
def route(request, monkeypatch):
    """The comparison by ArviZ on rows, and by the same formulas on cells."""
    if request.param == "cells":
        monkeypatch.setattr(ranking, "ROWS_TIMES_RUNS", 0)
        monkeypatch.setattr(ranking, "arviz_compare", None)  # not even to be called
    else:
        monkeypatch.setattr(ranking, "_by_cells", None)


@pytest.mark.parametrize("seed", range(5))
def test_table_equals_that_of_arviz(route, seed):
    runs = candidates(noisy(5, seed=seed))
    table = compare(runs).table.set_index("name")
    expected = arviz_of(runs, "stacking")
    assert list(table.index) == list(expected.index)
    for ours, theirs in {"elpd_loo": "elpd", "se": "se", "elpd_diff": "elpd_diff", "dse": "dse"}.items():
        np.testing.assert_allclose(table[ours], expected[theirs], atol=1e-8)
    np.testing.assert_allclose(table["weight_stacking"], expected["weight"], atol=1e-8)
    np.testing.assert_allclose(table["weight_pseudo_bma"], arviz_of(runs, "pseudo-BMA")["weight"], atol=1e-8)


def test_large_tables_are_compared_by_cells(monkeypatch):
    monkeypatch.setattr(ranking, "_by_rows", None)
    runs = shifted(-1.0)
    many = [replace(run, pointwise=run.pointwise.assign(multiplicity=10**6)) for run in runs]
    assert compare(many).num_rows == NUM_CELLS * 10**6


def test_se_has_ddof_1_and_dse_has_ddof_0(route):
    # by hand: three rows, -1 -2 -6 and -1 -3 -7; differences 0 1 1
    runs = [candidate("a", [-1.0, -2.0, -6.0]), candidate("b", [-1.0, -3.0, -7.0])]
    runs = [replace(run, pointwise=run.pointwise.assign(multiplicity=1)) for run in runs]
    best, other = (row for _, row in compare(runs).table.iterrows())
    assert best["se"] == pytest.approx(np.sqrt(3 * 7.0))  # squares 4 1 9 about the mean -3, by 3 - 1
    assert other["elpd_diff"] == pytest.approx(-2.0)
    assert other["dse"] == pytest.approx(np.sqrt(3 * 2 / 9))  # variance of 0 1 1 by 3


@settings(max_examples=10)
@given(st.permutations(range(4)), st.permutations(range(NUM_CELLS)))
def test_order_of_runs_and_cells_changes_nothing(runs_order, cells_order):
    runs = candidates(noisy(4))
    mixed = [runs[k] for k in runs_order]
    mixed[1] = replace(mixed[1], pointwise=mixed[1].pointwise.iloc[list(cells_order)])
    # the optimiser of the weights stops within 1e-6 of the best score
    pd.testing.assert_frame_equal(compare(runs).table, compare(mixed).table, atol=1e-6)


def test_a_row_that_a_model_holds_for_impossible_leaves_the_weights_finite(route):
    values = noisy(3)
    values[0, 1:] = -900.0  # exp(-900) is 0
    values[1] = -800.0
    weights = compare(candidates(values)).table["weight_stacking"]
    assert np.isfinite(weights).all()
    assert weights.sum() == pytest.approx(1.0)
    assert weights[0] > 0.1  # without it the mixture holds that row for impossible too


def test_fewer_than_two_runs_are_refused():
    [run] = candidates(noisy(1))
    with pytest.raises(ComparisonError, match=r"two different runs; only m0 \(id-of-m0\) was given"):
        compare([run])
    with pytest.raises(ComparisonError, match="none was given"):
        compare([])


def test_a_run_named_twice_is_taken_once():
    one, other = candidates(noisy(2))
    assert len(compare([one, other, one]).table) == 2
    with pytest.raises(ComparisonError, match="was given"):
        compare([one, one])


def test_other_data_are_refused_with_both_digests_and_the_runs():
    one, other = candidates(noisy(2))
    with pytest.raises(ComparisonError, match=r"d1: m0 \(id-of-m0\); d2: m1 \(id-of-m1\)") as caught:
        compare([one, replace(other, data_sha256="d2")])
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda cells: cells.iloc[1:], r"\(group 0, exposure 1, count 0\) is in only one of the two"),
        (lambda cells: cells.assign(exposure=[1.0] * 39 + [2.5]), r"\(group 0, exposure 1, count 39\) is in only one"),
        (lambda cells: cells.assign(multiplicity=[*MULTIPLICITY[:-1], 9]), r"count 39\) has different multiplicities"),
        (lambda cells: pd.concat([cells, cells.iloc[[7]]]), r"of id-of-m1 has .*count 7\) twice"),
    ],
    ids=["missing", "other exposure", "other multiplicity", "twice"],
)
def test_cells_that_do_not_match_are_refused_with_the_first(damage, message):
    one, other = candidates(noisy(2))
    with pytest.raises(ComparisonError, match=message):
        compare([one, replace(other, pointwise=damage(other.pointwise))])


def test_pointwise_values_are_read_as_they_were_written(tmp_path):
    cells = pointwise(noisy(1)[:4, 0]).assign(group=["NA", "007", "a,b\nc", "1.0"], pareto_k=[0.1, np.nan, np.inf, 0.3])
    cells.to_csv(tmp_path / "pointwise.csv", index=False)
    read = read_pointwise(tmp_path / "pointwise.csv")
    assert list(read["group"]) == ["NA", "007", "a,b\nc", "1.0"]
    assert read["elpd"].to_numpy().tobytes() == cells["elpd"].to_numpy().tobytes()
    np.testing.assert_array_equal(read["pareto_k"], cells["pareto_k"])


def test_a_suspect_run_is_never_called_best():
    first, second, third = shifted(-10.0, -30.0)
    found = compare([replace(first, verdict="suspect"), second, third])
    assert found.best == second.run_id
    assert found.words[0].startswith("Best of 3 runs by elpd_loo on")
    assert ": m1 (" in found.words[0]
    assert found.words[1].startswith("A suspect run has a higher elpd_loo and is therefore not called best: m0 (")
    assert list(found.table["name"]) == ["m0", "m1", "m2"]
    np.testing.assert_allclose(found.table["elpd_diff"], [10.0, 0.0, -20.0])  # to the best, not to the first


def test_no_run_is_called_best_where_none_is_trusted():
    found = compare(shifted(-10.0, verdict="suspect"))
    assert found.best == ""
    assert found.words[0].startswith("No run is trusted, so none is called best")
    assert not any("Best of" in line or line.startswith("Tie with") for line in found.words)


@pytest.mark.parametrize(
    ("difference", "error", "expected"),
    [(-3.99, 0.1, True), (-4.0, 0.1, False), (-30.0, 15.1, True), (-30.0, 15.0, False), (3.0, 0.0, True)],
)
def test_a_tie_is_a_difference_under_4_or_under_2_of_its_errors(difference, error, expected):
    assert is_tie(difference, error) is expected


def test_ties_and_runs_behind_are_told_apart_in_words():
    words = compare(shifted(-3.5, -4.5)).words
    assert any(re.match(r"Tie with m0: m1 \(-3\.50, se 0\.00\)\. ", line) for line in words)
    assert "Worse than m0: m2 (-4.50, se 0.00)." in words


@pytest.mark.parametrize(("num_rows", "expected"), [(99, True), (100, False)])
def test_few_rows_bring_a_caution(num_rows, expected):
    multiplicity = np.append(np.ones(NUM_CELLS - 1, int), num_rows - NUM_CELLS + 1)
    runs = [replace(run, pointwise=run.pointwise.assign(multiplicity=multiplicity)) for run in shifted(-1.0)]
    words = compare(runs).words
    assert any(f"With {num_rows} rows, fewer than 100" in line for line in words) is expected


@pytest.mark.parametrize(("num_runs", "expected"), [(11, False), (12, True)])
def test_many_candidates_bring_a_warning(num_runs, expected):
    words = compare(candidates(noisy(num_runs))).words
    assert any(line.startswith("Selection among many") for line in words) is expected


@pytest.mark.parametrize("lead", [0.0, 40.0])
@pytest.mark.parametrize("seed", range(3))
def test_best_of_many_is_judged_as_by_arviz(lead, seed):
    values = noisy(12, seed=seed, spread=0.02)
    values[:, 0] += lead / MULTIPLICITY.sum()
    runs = candidates(values)
    [line] = [line for line in compare(runs).words if line.startswith("Selection among many")]
    elpd = np.sort(MULTIPLICITY @ values)[::-1]
    upper = (elpd - elpd[6])[:6]  # differences to the median run, and the half of them above their median
    by_chance = np.sqrt((upper**2).mean()) * 1.69062  # Phi^-1(1 - 1 / 22)
    assert f"leads the median run by {upper[0]:.2f}" in line
    assert f"the {by_chance:.2f} expected by chance" in line
    with pytest.warns(UserWarning) if lead == 0.0 else warnings.catch_warnings(action="error"):
        arviz_of(runs, "pseudo-BMA")  # warns where a lead may be due to chance
    assert ("no more than" in line) == (lead == 0.0)


def test_words_say_that_weights_are_no_probabilities():
    assert compare(shifted(-1.0)).words[-1].startswith("Weights are not model probabilities")


def test_a_run_without_a_finite_elpd_comes_last_and_is_told():
    broken = candidate("broken", np.full(NUM_CELLS, np.nan), verdict="suspect")
    found = compare([broken, *shifted(-1.0)])
    assert list(found.table["name"]) == ["m0", "m1", "broken"]
    assert found.table.iloc[2][["elpd_loo", "elpd_diff", "weight_stacking"]].isna().all()
    assert "Not ranked, because their elpd_loo is not finite: broken." in found.words
    with pytest.raises(ComparisonError, match=r"fewer than two runs have a finite elpd_loo \(not finite: broken\)"):
        compare([broken, *candidates(noisy(1))])


def test_only_the_config_keys_that_differ_are_kept():
    one, other = shifted(-1.0)
    one = replace(one, params={"seed": "0", "data.name": "cookies", "prior.sigma.rate": "1.0"})
    differing = compare([one, replace(other, params={"seed": "1", "data.name": "cookies"})]).differing
    assert differing.to_dict() == {
        "m0": {"seed": "0", "prior.sigma.rate": "1.0"},
        "m1": {"seed": "1", "prior.sigma.rate": ""},
    }


def test_runs_with_the_same_config_differ_in_nothing():
    assert compare(shifted(-1.0)).differing.empty


def test_runs_of_one_name_are_told_apart_by_their_ids():
    one, other = shifted(-1.0)
    twins = [replace(one, name="hier-nb", run_id="aaaaaaaa"), replace(other, name="hier-nb", run_id="bbbbbbbb")]
    assert list(compare(twins).table["name"]) == ["hier-nb (aaaaaa)", "hier-nb (bbbbbb)"]


def test_telling_names_leave_out_what_all_share():
    names = ["hier-nb quick seed=1", "hier-pois quick seed=1", "hier-nb quick seed=2 quick"]
    assert telling(names) == ["hier-nb seed=1", "hier-pois seed=1", "hier-nb seed=2"]
    assert telling(["hier-nb", "hier-nb seed=1"]) == ["hier-nb", "hier-nb seed=1"]


def test_printed_table_is_aligned_and_at_most_120_wide():
    runs = shifted(-1.0, -1e9)
    runs[1] = replace(runs[1], name="start " + "long name " * 30 + "end", verdict="suspect")
    lines = text(compare(runs).table).splitlines()
    assert max(map(len, lines)) <= 120
    verdicts = zip(lines, ("verdict", "trusted", "SUSPECT", "trusted"), strict=True)
    assert len({line.index(verdict) for line, verdict in verdicts}) == 1
    assert re.search(r"  start .*….*end ", lines[2])


def test_markdown_escapes_what_would_break_the_table_and_links_the_runs():
    runs = shifted(-1.0)
    runs[0] = replace(runs[0], name="a|b<i>")
    table = markdown(compare(runs).table, {"id-of-m1": "#/there"})
    head, _, first, second = table.splitlines()
    assert r"a\|b&lt;i>" in first
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in (head, first, second)}) == 1
    assert second.endswith("| [id-of-m1](#/there) |")


def test_markdown_shows_the_first_runs_and_says_how_many_more():
    table = markdown(compare(candidates(noisy(25))).table)
    assert len([line for line in table.splitlines() if line.startswith("|")]) == 2 + ranking.SHOWN
    assert table.endswith("and 5 more in tables/comparison.csv")
