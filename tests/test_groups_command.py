"""The command that says which groups of a logged run differ, from its stored draws."""

import functools

import numpy as np
import pytest

from pictures import make_tree
from poolwise.runs.artifacts import write_tree
from poolwise.tracking import run as tracking
from poolwise.tracking.record import Record
from support import called

pytestmark = pytest.mark.fit


@pytest.fixture
def groups(outputs, tmp_path):
    """`groups("id", "--top", "2")`: the command in this process."""
    return functools.partial(called, folder=tmp_path, module="poolwise.groups")


@pytest.fixture
def log(outputs):
    """`log(labels)`: the run id of a finished fit, with no more artifacts than the first version wrote."""

    def logged(labels=("a", "b", "c"), *, verdict="trusted", **table) -> str:
        counts = np.repeat([20, 9, 2], 10) if len(labels) == 3 else None
        params = {"data.group": "bakery_town", "likelihood.name": "poisson"}
        record = Record(name="hier-pois", experiment="x", params=params, tags={"verdict": verdict}, metrics={})
        with tracking.logged_run(record, uri=f"sqlite:///{outputs}/mlflow.db", outputs=outputs, parent="") as run:
            write_tree(make_tree(labels, counts=counts, **table), run.artifacts / "posterior" / "posterior.nc")
        return run.run_id

    return logged


def test_ranking_is_printed_the_highest_rate_first(groups, log):
    done = groups(log(["low", "mid", "top"][::-1]))
    assert done.returncode == 0, done.stderr
    rows = [line.split()[0] for line in done.stdout.splitlines() if line.startswith(("low", "mid", "top"))]
    assert rows == ["top", "mid", "low"]
    assert "bakery town top has the highest rate with probability over 99.9%" in done.stdout


def test_verdict_of_the_run_is_in_the_first_line(groups, log):
    assert groups(log(verdict="suspect")).stdout.splitlines()[0].endswith(", suspect, model check not checked")


def test_contrasts_with_a_group_and_probabilities_above_a_rate(groups, log):
    done = groups(log(), "--against", "b", "--above", "5")
    head, *rows = [line for line in done.stdout.splitlines() if line][-3:]
    assert head.startswith("against b")
    assert [row.split()[0] for row in rows] == ["a", "c"]
    (first,) = [line for line in done.stdout.splitlines() if line.startswith("a  ")][:1]
    assert "P(> 5)" in done.stdout and first.endswith("over 99.9%")


def test_top_limits_the_rows_and_says_how_to_see_the_rest(groups, log):
    done = groups(log([f"p{i}" for i in range(40)], rows=2), "--top", "3")
    assert "and 37 more: --top 40" in done.stdout
    assert sum(line.startswith("p") and line[1].isdigit() for line in done.stdout.splitlines()) == 3


def test_unknown_label_ends_with_the_labels_and_exit_code_2(groups, log):
    done = groups(log(["Rural A", "Rural B", "City"]), "--against", "rural b")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "RequestError: --against rural b is not a group of the data. Did you mean Rural B or Rural A? "
        "Groups are City, Rural A, Rural B.\n"
    )


def test_a_narrow_table_leaves_out_columns_and_breaks_no_line(groups, log, monkeypatch):
    run_id = log()
    widths = {}
    for columns in ("200", "80", "60"):
        monkeypatch.setenv("COLUMNS", columns)
        table = groups(run_id, "--against", "b").stdout.partition("\n\n")[2].splitlines()
        widths[columns] = max(map(len, table))
        assert all(name in table[0] for name in ("rate", "94% interval", "P(highest)"))
        assert ("90% of ranks" in table[0]) == ("expected loss" in "".join(table)) == (columns == "200")
    assert widths["60"] <= 60 and 60 < widths["80"] <= 80


def test_unknown_run_ends_with_exit_code_2(groups):
    done = groups("0" * 32)
    assert done.returncode == 2
    assert done.stderr.startswith("UnknownRunError: ")


def test_run_with_one_rate_has_no_groups_to_compare(groups, log):
    done = groups(log(pooling="pooled"))
    assert done.returncode == 0
    assert done.stdout.splitlines()[1] == "this model has one rate only: there are no groups to compare"


@pytest.mark.parametrize("top", ["0", "-1", "many"])
def test_number_of_rows_is_positive(groups, top):
    assert groups("0" * 32, "--top", top).returncode == 2
