"""A ranking to pictures: what each shows, what its caption says, and runs that are hard to draw."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pictures import HARD_LABELS, inside_counted, make_count_table, make_summary, make_tree
from poolwise.comparison.figures import FIGURES, MAX_MODELS, Member, absent, base, draw
from poolwise.figures.base import Picture
from poolwise.figures.style import png
from poolwise.model.poolings import POOLINGS

pytestmark = pytest.mark.fit

SIX = [
    (pooling, noise) for noise in ("poisson", "negative_binomial") for pooling in ("pooled", "unpooled", "hierarchical")
]


def make_table(num_runs: int = 6, *, names=None, suspect=(), **columns) -> pd.DataFrame:
    """A ranked table, best first, each run 3 behind the one before it."""
    diff = -3.0 * np.arange(num_runs)
    table = pd.DataFrame(
        {
            "rank": np.arange(1, num_runs + 1),
            "name": names or [f"run{k}" for k in range(num_runs)],
            "elpd_loo": -400 + diff,
            "se": 9.0,
            "elpd_diff": diff,
            "dse": 0.5,
            "diff_mcse": 0.0,
            "model_check": "passed",
            "verdict": ["suspect" if k in suspect else "trusted" for k in range(num_runs)],
            "run_id": [f"id{k}" for k in range(num_runs)],
        }
    )
    return table.assign(**columns)


def make_members(variants=SIX, *, labels=("a", "b", "c"), **changes) -> dict[str, Member]:
    members = {}
    for k, (pooling, likelihood) in enumerate(variants):
        tree = make_tree(labels, pooling=pooling, **changes)
        members[f"id{k}"] = Member(POOLINGS[pooling], likelihood, make_summary(tree), make_count_table(), tree)
    return members


@pytest.fixture(scope="module")
def members() -> dict[str, Member]:
    return make_members()


def picture(name: str, members: dict[str, Member], table: pd.DataFrame | None = None) -> Picture:
    [(drawn, result)] = draw([name], make_table(len(members)) if table is None else table, members)
    assert drawn == name
    return result


def lines_with(result: Picture, marker: str, axes: int = 0) -> list:
    return [line for line in result.figure.axes[axes].lines if line.get_marker() == marker]


def replaced(members: dict[str, Member], run_id: str, **changes) -> dict[str, Member]:
    return members | {run_id: Member(**(vars(members[run_id]) | changes))}


def test_draw_yields_the_figures_asked_for_in_their_order(members):
    assert [name for name, _ in draw(["forest", "elpd"], make_table(), members)] == ["forest", "elpd"]


def test_png_is_a_picture_1280_pixels_wide(members):
    image = png(picture("elpd", members).figure)
    assert image[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(image[16:20]) == 1280  # the width in the IHDR chunk


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize(
    "case",
    [
        {"labels": HARD_LABELS, "exposure": 2.5},
        {"labels": ["only"], "rows": 1},
        {"counts": np.zeros(30, int)},
        {"counts": np.arange(30) * 10**7},
        {"labels": [f"g{i:03}" for i in range(200)], "rows": 2},
        {"variants": SIX * 3},
    ],
    ids=["hard_labels", "one_row", "all_zero", "huge", "many_groups", "many_runs"],
)
def test_every_figure_survives_hard_runs(name, case):
    members = make_members(**case)
    names = ([*HARD_LABELS, "long " * 60, "$x"] * 2)[: len(members)]
    table = make_table(len(members), names=names, suspect=(0, 3))
    result = picture(name, members, table)  # a missing glyph or an overflow would warn, which is an error
    image = png(result.figure)
    assert int.from_bytes(image[20:24]) < 2600  # pixels high, so that it can be looked at
    assert result.how_to_read.startswith("Look ")
    assert not result.caption.startswith(("Look ", "Here "))
    assert result.alternative.startswith(f"{FIGURES[name].kind}: ")
    assert "nan" not in result.caption


def test_elpd_shows_every_run_with_its_errors(members):
    figure = picture("elpd", members, make_table(se=[1, 2, 3, 4, 5, 6], dse=[0, 1, 2, 3, 4, 5])).figure
    spans = [
        [tuple(path.vertices[:, 0] - centre) for path, centre in zip(lines.get_paths(), values, strict=True)]
        for lines, values in [
            (figure.axes[0].collections[0], make_table()["elpd_loo"]),
            (figure.axes[1].collections[0], make_table()["elpd_diff"]),
            (figure.axes[1].collections[1], make_table()["elpd_diff"]),
        ]
    ]
    np.testing.assert_allclose(spans[0], [(-e, e) for e in (1, 2, 3, 4, 5, 6)])
    np.testing.assert_allclose(spans[1], [(-e, e) for e in (0, 1, 2, 3, 4, 5)])
    np.testing.assert_allclose(spans[2], [(-2 * e, 2 * e) for e in (0, 1, 2, 3, 4, 5)])


def test_elpd_marks_suspect_runs_apart_and_never_calls_one_best(members):
    result = picture("elpd", members, make_table(suspect=(0, 5)))
    [suspect], [trusted] = lines_with(result, "D"), lines_with(result, "o")
    assert (len(suspect.get_xdata()), len(trusted.get_xdata())) == (2, 4)
    assert result.figure.axes[0].get_yticklabels()[0].get_text() == "1. run0 (suspect)"
    assert "The best model is 2. run1" in result.caption
    assert "2 open diamonds: not to be called best." in result.caption


def test_elpd_caption_counts_the_ties(members):
    # differences 0 -3 -6 -9 ...: under 4 is one; under 2 errors of 3.2 (6.4) two
    assert "1 of 5 other models that may be best ties with it" in picture("elpd", members).caption
    assert "2 of 5 other models that may be best tie with it" in picture("elpd", members, make_table(dse=3.2)).caption


def test_elpd_without_a_trusted_run_calls_none_best(members):
    caption = picture("elpd", members, make_table(suspect=range(6))).caption
    assert "No model may be called best" in caption
    assert "The best model is" not in caption


def test_elpd_of_runs_far_behind_is_drawn_on_a_logarithmic_scale(members):
    table = make_table()
    table.loc[5, "elpd_diff"] = -5e4
    axes = picture("elpd", members, table).figure.axes[1]
    assert axes.get_xscale() == "symlog"
    assert picture("elpd", members).figure.axes[1].get_xscale() == "linear"
    assert "−10,000" in [tick.get_text() for tick in axes.get_xticklabels()]


def test_elpd_marks_a_failed_model_check_apart(members):
    table = make_table()
    table.loc[0, "model_check"] = "failed"
    result = picture("elpd", members, table)
    assert result.figure.axes[0].get_yticklabels()[0].get_text() == "1. run0 (check failed)"
    assert "The best model is 2. run1" in result.caption


def test_forest_leaves_out_models_that_group_the_rows_in_another_way(members):
    other = make_members([("hierarchical", "poisson")], labels=("x", "y"))
    result = picture("forest", members | {"id2": other["id0"]})
    assert "Models left out because they group the rows in another way: 1." in result.caption
    assert len([line for line in result.figure.axes[0].lines if line.get_label()[0].isdigit()]) == 5


@pytest.mark.parametrize("name", FIGURES)
def test_a_model_without_a_member_is_left_out_and_the_others_keep_their_ranks(name, members):
    known = {run_id: member for run_id, member in members.items() if run_id != "id0"}
    [(_, result)] = draw([name], make_table(), known)
    assert result.caption
    if name == "predictive":
        assert result.figure.axes[0].get_title() == "2. run1"


def test_elpd_leaves_out_a_run_that_has_none(members):
    table = make_table()
    table.loc[5, ["elpd_loo", "se", "elpd_diff", "dse"]] = np.nan
    assert len(picture("elpd", members, table).figure.axes[0].get_yticklabels()) == 5


def test_predictive_has_a_panel_a_run_on_shared_axes(members):
    panels = picture("predictive", members).figure.axes
    assert [axes.get_title() for axes in panels] == [f"{k + 1}. run{k}" for k in range(6)]
    for shared in (panels[0].get_shared_x_axes(), panels[0].get_shared_y_axes()):
        assert all(shared.joined(panels[0], other) for other in panels[1:])


def test_predictive_counts_where_the_line_is_inside():
    members = make_members([("pooled", "poisson")] * 2, counts=[0] * 10 + [9] * 20)
    inside, total = inside_counted(members["id0"].tree)
    result = picture("predictive", members)
    assert f"they are inside at {inside} of {total} counts" in result.caption
    assert [text.get_text() for text in result.figure.axes[0].texts] == [f"inside at {inside} of {total}"]


def test_predictive_of_one_astray_model_does_not_squeeze_the_others(members):
    wild = members["id2"].tree.copy()
    wild["posterior_predictive"]["y"] = wild["posterior_predictive"]["y"] * 10**6
    result = picture("predictive", replaced(members, "id2", tree=wild))
    assert result.figure.axes[0].get_xlim()[1] < 100
    assert "are not shown" in result.caption


def test_predictive_leaves_out_a_run_without_draws_and_says_so(members):
    result = picture("predictive", replaced(members, "id1", tree=None))
    assert len(result.figure.axes) == 5
    assert "Models left out because their runs have no stored draws: 1." in result.caption


def test_forest_draws_the_interval_of_every_model_and_group(members):
    figure = picture("forest", members).figure
    drawn = {marker: lines_with(Picture(figure, ""), marker)[0].get_xdata() for marker in "os"}
    lam = members["id0"].summary.loc["lam", "mean"]
    np.testing.assert_allclose(drawn["o"], [lam] * 3)  # run 0 is pooled: one rate for every group
    np.testing.assert_allclose(drawn["s"], members["id1"].summary.loc[["lam.a", "lam.b", "lam.c"], "mean"])


def test_forest_gives_every_model_a_look_of_its_own():
    figure = picture("forest", make_members(SIX * 2)).figure
    named = [line for line in figure.axes[0].lines if line.get_label()[0].isdigit()]
    assert len({(line.get_color(), line.get_marker()) for line in named}) == len(named) == MAX_MODELS


def test_forest_shows_the_groups_on_which_the_models_differ_most():
    labels = [f"g{i:03}" for i in range(100)]
    members = make_members([("unpooled", "poisson"), ("hierarchical", "poisson")], labels=labels, rows=2)
    moved = members["id1"].summary.copy()
    moved.loc["lam.g077", ["hdi_3%", "mean", "hdi_97%"]] += 50.0
    result = picture("forest", replaced(members, "id1", summary=moved))
    shown = [tick.get_text() for tick in result.figure.axes[0].get_yticklabels()]
    assert "g077" in shown
    assert f"Shown are the {len(shown)} of 100 groups on which they differ most." in result.caption
    assert "The models differ most on group g077" in result.caption


def test_shrinkage_sets_unpooled_against_hierarchical_means(members):
    result = picture("shrinkage", members)
    assert [axes.get_title() for axes in result.figure.axes] == ["poisson", "negative binomial"]
    groups = ["lam.a", "lam.b", "lam.c"]
    for panel, (across, up, pooled) in enumerate([("id1", "id2", "id0"), ("id4", "id5", "id3")]):
        [points] = lines_with(result, "o", panel)
        np.testing.assert_allclose(points.get_xdata(), members[across].summary.loc[groups, "mean"])
        np.testing.assert_allclose(points.get_ydata(), members[up].summary.loc[groups, "mean"])
        level = next(line for line in result.figure.axes[panel].lines if line.get_label() == "the pooled rate")
        np.testing.assert_allclose(level.get_ydata(), members[pooled].summary.loc["lam", "mean"])


def test_shrinkage_takes_the_first_run_of_each_kind():
    kinds = [("hierarchical", "poisson"), ("unpooled", "poisson"), ("unpooled", "poisson"), ("hierarchical", "poisson")]
    axes = picture("shrinkage", make_members(kinds)).figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("rate by 2. run1", "rate by 1. run0")


def test_shrinkage_without_both_kinds_is_left_out_with_the_reason():
    members = make_members([("pooled", "poisson"), ("unpooled", "poisson"), ("hierarchical", "negative_binomial")])
    assert list(draw(["shrinkage"], make_table(3), members)) == []
    assert absent("shrinkage", list(members.values())) == (
        "shrinkage: it needs an unpooled and a hierarchical model with the same likelihood and groups"
    )


def test_figures_of_runs_without_draws_are_left_out_with_the_reason(members):
    bare = [Member(**(vars(member) | {"tree": None})) for member in members.values()]
    assert [name for name in FIGURES if absent(name, bare)] == ["predictive", "forest"]
    assert absent("forest", bare) == "forest: it needs the stored draws of at least one run"


def test_runs_that_predict_a_group_of_the_data_have_no_picture_of_a_new_one(members):
    named = [replace(each, new_group=pd.DataFrame()) for each in members.values()]
    assert [name for name in FIGURES if absent(name, named)] == ["new_group"]
    assert "runs with predict.group have none" in absent("new_group", named)


def test_new_group_tells_median_and_interval_and_who_knows_only_the_prior(members):
    result = picture("new_group", members)
    [axes] = result.figure.axes
    # geometric with mean 9: P(count <= k) = 1 - 0.9^(k + 1), so 5% at 0, 50% at 6, 95% at 28
    assert [text.get_text() for text in axes.texts][:2] == ["6 (0 to 28)", "6 (0 to 28)"]
    labels = [tick.get_text() for tick in axes.get_yticklabels()]
    assert [label.endswith("(from the prior alone)") for label in labels] == [False, True, False] * 2


def test_new_group_of_a_coarse_table_is_drawn_as_density(members):
    coarse = replaced(members, "id0", new_group=make_count_table(90.0, step=10))
    heights = [np.ptp(patch.get_path().vertices[:, 1]) for patch in picture("new_group", coarse).figure.axes[0].patches]
    # a tenth of the others' mean height: the same mass over ten times as many counts
    assert heights[0] < 0.2 * heights[2]


def test_new_group_of_a_vague_prior_does_not_squeeze_the_others(members):
    vague = replaced(members, "id1", new_group=make_count_table(9000.0, step=1000))
    result = picture("new_group", vague)
    assert result.figure.axes[0].get_xlim()[1] < 200
    assert "are not shown" in result.caption


def test_new_group_where_no_model_has_learnt_says_so():
    members = make_members([("unpooled", "poisson"), ("unpooled", "negative_binomial")])
    assert "No model has information about a new group" in picture("new_group", members).caption


@pytest.mark.parametrize("name", ["predictive", "forest", "new_group"])
def test_more_runs_than_a_picture_holds_are_told(name, monkeypatch, members):
    monkeypatch.setattr(base, "MAX_MODELS", 4)
    assert "Shown are the first 4 of 6 models." in picture(name, members).caption
