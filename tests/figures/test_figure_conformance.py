"""What every figure of the registry must do, shown on one small fit of groups with hard names."""

import re

import numpy as np
import pytest
import xarray as xr
from matplotlib import pyplot
from poolwise.data import Columns, counts_from_rows
from poolwise.fit import Sampler
from poolwise.priors import prior_values
from poolwise.tree import to_tree

from pictures import view_of
from poolwise import predict
from poolwise.checks import loo as loo_module
from poolwise.checks import power_scaling
from poolwise.checks import summary as summary_module
from poolwise.checks.base import FitView
from poolwise.figures import Picture, png
from poolwise.figures.base import Plot
from poolwise.figures.names import NAMES
from poolwise.figures.registry import FIGURES, MODULES, draw
from support import PRIORS, fit_cookies, model_of

LABELS = ["$x^2$ & <b>", "東京", "x" * 75, "7"]
SAMPLER = Sampler(
    num_warmup=200, num_samples=250, num_chains=4, target_accept=0.9, max_tree_depth=10, checkpoint_every=250
)
SENTENCES = re.compile(r"[A-Z].*[^.]\.")
NO_NUMBER = re.compile(r"\b(nan|inf|None)\b")


@pytest.fixture(scope="module")
def view() -> FitView:
    """A fit as a run leaves it, of rows with exposures."""
    rng = np.random.default_rng(0)
    size = rng.choice([1.0, 2.5], 48)
    counts = counts_from_rows(
        np.repeat(np.array(LABELS, object), 12),
        rng.poisson(np.repeat([4.0, 8.0, 12.0, 9.0], 12) * size),
        size,
        columns=Columns("shop", "calls", "open_hours"),
    )
    fitted = fit_cookies(counts, "hierarchical", "poisson", sampler=SAMPLER)
    return judged(to_tree(fitted.posterior, fitted.sample_stats, counts), counts)


def judged(tree: xr.DataTree, counts) -> FitView:
    """What the checks and the predictions say of these draws; the groups left out are made up, for they need refits."""
    model, values = model_of("hierarchical", "poisson"), prior_values(PRIORS, sites=("mu", "sigma"))
    posterior, cells = tree["posterior"].to_dataset(), tree["constant_data"].to_dataset()
    summary = summary_module.summarise(posterior)
    draws, rng = np.arange(posterior.sizes["draw"]), np.random.default_rng(1)
    replicated = predict.posterior_predictive(posterior, cells, num_draws=200, rng=rng)
    prior, prior_predictive = predict.prior(model, values, cells, num_draws=200, seed=0)
    for name, part in zip(
        ("posterior_predictive", "prior", "prior_predictive"), (replicated, prior, prior_predictive), strict=True
    ):
        tree[name] = xr.DataTree(part)

    def blocks():
        return predict.pointwise_log_likelihood(posterior, cells)

    loo = loo_module.loo(blocks(), counts.cell_multiplicity, r_eff=1.0)
    below = loo_module.loo_below(
        blocks(), predict.pointwise_log_below(posterior, cells, draws=draws), draws=draws, r_eff=1.0
    )
    return view_of(
        tree,
        counts,
        summary=summary,
        cell_elpd=loo.cell_elpd,
        pareto_k=loo.pareto_k,
        cell_below=np.exp(below),
        new_group=predict.new_group(model, posterior, values, exposure=2.5, seed=0),
        sensitivity=power_scaling.power_scaling(posterior, cells, model, values),
    )


@pytest.fixture(scope="module", params=NAMES)
def drawn(request, view) -> tuple[Plot, Picture, bytes]:
    """A figure with its bytes; a warning while it is drawn is an error."""
    [(name, result)] = draw([request.param], view)
    assert name == request.param
    return FIGURES[name], result, png(result.figure)


def test_every_name_has_one_figure_and_every_figure_a_name():
    marked = [each.name for module in MODULES for each in vars(module).values() if isinstance(each, Plot)]
    assert sorted(marked) == sorted(NAMES) == sorted(set(NAMES))
    assert list(FIGURES) == list(NAMES)


def test_picture_is_a_png_of_the_width_of_the_page(drawn):
    _, _, image = drawn
    assert image[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(image[16:20]) == 1056  # the width in the IHDR chunk
    assert len(image) > 5000


def test_caption_says_what_to_look_for_and_what_this_one_shows(drawn):
    plot, result, _ = drawn
    assert SENTENCES.fullmatch(plot.look_for) and plot.look_for.startswith("Look ")
    assert result.caption.startswith(f"{plot.look_for} ")
    assert re.search(r"\bHere\b", result.caption)


def test_caption_is_one_line_of_whole_sentences_with_known_numbers(drawn):
    _, result, _ = drawn
    assert SENTENCES.fullmatch(result.caption)  # a dot matches no line break
    assert "  " not in result.caption
    assert not NO_NUMBER.search(result.caption)
    assert len(result.caption) < 2000


def test_table_behind_the_picture_names_its_rows_and_has_all_groups(drawn, view):
    _, result, _ = drawn
    if result.table is not None and result.table.index.name == "group":
        assert list(result.table.index) == list(view.counts.labels)


def test_pyplot_holds_no_figure(drawn):
    assert pyplot.get_fignums() == []


def test_figures_share_nothing_but_the_fit(view):
    # drawn after all others, or alone: the same pixels and the same caption
    [*_, (name, last)] = draw(NAMES, view)
    [(_, alone)] = draw([name], view)
    assert (last.caption, png(last.figure)) == (alone.caption, png(alone.figure))
