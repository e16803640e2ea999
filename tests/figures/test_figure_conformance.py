"""What every figure of the registry must do, shown on one small fit of groups with hard names."""

import re
from dataclasses import replace

import numpy as np
import pytest
from matplotlib import pyplot

from pictures import make_groups_out
from poolwise.checks import leave_group_out
from poolwise.checks.base import FitView, Settings
from poolwise.checks.findings import examine
from poolwise.counts.cells import Columns, counts_from_rows
from poolwise.figures.base import Picture, Plot
from poolwise.figures.names import NAMES
from poolwise.figures.registry import FIGURES, MODULES, draw
from poolwise.figures.style import png
from poolwise.inference.engines.nuts import sample
from poolwise.inference.settings import Sampler
from poolwise.model.count_model import count_model
from poolwise.model.priors import prior_values
from support import ONE_DEVICE, PRIORS

pytestmark = pytest.mark.fit

LABELS = ["$x^2$ & <b>", "東京", "x" * 75, "7"]
SAMPLER = Sampler(
    num_warmup=200, num_samples=250, num_chains=4, target_accept=0.9, max_tree_depth=10, checkpoint_every=250
)
SENTENCES = re.compile(r"[A-Z0-9].*[^.]\.")
NO_NUMBER = re.compile(r"\b(nan|inf|None)\b")


@pytest.fixture(scope="module")
def view() -> FitView:
    """A fit of rows with exposures, examined as a run does it; the groups left out are made up: they need refits."""
    rng = np.random.default_rng(0)
    size = rng.choice([1.0, 2.5], 48)
    counts = counts_from_rows(
        np.repeat(np.array(LABELS, object), 12),
        rng.poisson(np.repeat([4.0, 8.0, 12.0, 9.0], 12) * size),
        size,
        covariates={"day": rng.choice(["Mon", "$t^2$"], 48), "age": rng.integers(20, 60, 48).astype(str)},
        columns=Columns("shop", "calls", "open_hours"),
    )
    sites = ("mu", "sigma", "beta")
    families, values = {site: PRIORS[site]["name"] for site in sites}, prior_values(PRIORS, sites=sites)
    model = count_model("hierarchical", "poisson", families, effects=counts.effects)
    draws = sample(model, counts, values, seed=0, sampler=SAMPLER, device=ONE_DEVICE)
    asked = {"checks": frozenset({"groups", "rate_ratios", "sensitivity"}), "exposure": 2.5, "num_draws": 200}
    found = examine(model, counts, values, draws, Settings(seed=0, sampler=SAMPLER, device=ONE_DEVICE, **asked))
    left_out = leave_group_out.result(make_groups_out(counts.labels))
    return replace(found, results={**found.results, "leave_group_out": left_out})


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


def test_caption_says_what_this_one_shows_and_another_text_how_to_read_it(drawn):
    plot, result, _ = drawn
    assert SENTENCES.fullmatch(plot.how_to_read) and plot.how_to_read.startswith("Look ")
    assert result.how_to_read.startswith(plot.how_to_read) and SENTENCES.fullmatch(result.how_to_read)
    assert not re.search(r"\b(Look|Here)\b", result.caption)
    assert re.search(r"[0-9]|prior", result.caption)


def test_alternative_text_is_one_sentence_of_kind_and_finding(drawn):
    plot, result, _ = drawn
    assert result.alternative.startswith(f"{plot.kind}: ")
    assert SENTENCES.fullmatch(result.alternative) and not re.search(r"[.] [A-Z0-9]", result.alternative)


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
