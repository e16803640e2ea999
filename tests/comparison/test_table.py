"""The printed table: what it shows at which width, in text and in Markdown."""

import re
from dataclasses import replace

import pytest

from candidates import again, candidate, candidates, noisy, shifted
from poolwise.comparison import table as module
from poolwise.comparison.ranking import compare
from poolwise.comparison.table import cells, markdown, text


def grid(*changes: dict, **other):
    """Six variants on one table."""
    runs = []
    for k, (pooling, likelihood) in enumerate(
        (pooling, likelihood)
        for pooling in ("pooled", "unpooled", "hierarchical")
        for likelihood in ("poisson", "negative_binomial")
    ):
        params = {"pooling.name": pooling, "likelihood.name": likelihood}
        runs.append(candidate("a", noisy(6)[:, k], run_id=f"{k}" * 32, params=params, **other))
    return compare([replace(run, **more) for run, more in zip(runs, [*changes, *[{}] * 6], strict=False)])


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_no_line_is_wider_than_the_terminal_and_no_number_or_id_is_cut(width):
    found = grid()
    lines = text(found.table, found.labels, width=width).splitlines()
    assert max(map(len, lines)) <= width
    assert re.fullmatch(r"1  .* \+0\.00 +0\.00 .*\d{8}", lines[1])
    whole = {cell for row in cells(found.table, found.labels) for cell in row}
    shown = [cell for row in cells(found.table, found.labels, width=width) for cell in row]
    shortened = {cell for cell in shown if cell not in whole}
    assert shortened == ({"negative…inomial"} if width == 60 else set())


def test_every_swept_key_is_a_column():
    found = grid()
    assert list(found.labels) == ["pooling.name", "likelihood.name"]
    assert cells(found.table, found.labels, width=80)[0][:3] == ["#", "pooling", "likelihood"]


def test_a_model_check_that_fails_is_a_column_at_any_width():
    found = grid({"model_check": "failed"})
    assert "check" not in cells(grid().table, found.labels, width=80)[0]  # passed by all, which the words say
    for width in (80, 120):
        head, *rows = cells(found.table, found.labels, width=width)
        assert sorted(row[head.index("check")] for row in rows) == ["FAILED", *["passed"] * 5]


def test_a_suspect_verdict_is_in_capitals():
    found = grid({"verdict": "suspect"})
    head, *rows = cells(found.table, found.labels)
    assert sorted(row[head.index("verdict")] for row in rows) == ["SUSPECT", *["trusted"] * 5]


def test_a_wide_table_has_every_number():
    runs = [replace(run, pointwise=run.pointwise) for run in shifted(-1.0)]
    found = compare([*runs, again(runs[0], seed=1)])
    heads = [head for head, _ in module.NUMBERS.values() if head != "elpd groups out"]
    assert cells(found.table, found.labels)[0] == ["#", "pooling", *heads, "verdict", "check", "run id"]


def test_a_single_model_has_no_difference():
    run = shifted(-1.0)[0]
    found = compare([run, again(run, seed=1)])
    assert not {"diff", "se diff", "p_worse", "stacking"} & set(cells(found.table, found.labels)[0])


def test_long_labels_are_shortened_in_the_middle():
    runs = shifted(-1.0)
    runs[1] = replace(runs[1], params={"pooling.name": "start " + "long name " * 30 + "end"})
    found = compare(runs)
    lines = text(found.table, found.labels, width=80).splitlines()
    assert max(map(len, lines)) <= 80
    assert re.search(r"  start .*….*end ", lines[2])


def test_markdown_escapes_what_would_break_the_table_and_links_the_runs():
    runs = shifted(-1.0)
    runs[0] = replace(runs[0], params={"pooling.name": "a|b<i>"})
    found = compare(runs)
    head, _, first, second = markdown(found.table, found.labels, {"id-of-m1": "#/there"}).splitlines()
    assert r"a\|b&lt;i>" in first
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in (head, first, second)}) == 1
    assert second.endswith("| [id-of-m1](#/there) |")


def test_markdown_shows_the_first_models_and_says_how_many_more():
    found = compare(candidates(noisy(25)))
    table = markdown(found.table, found.labels)
    assert len([line for line in table.splitlines() if line.startswith("|")]) == 2 + module.SHOWN
    assert table.endswith("and 5 more in tables/comparison.csv")
