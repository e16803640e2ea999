"""The model as a graph, or in words where Graphviz is not there."""

from pictures import make_tree, picture


def without_graphviz(monkeypatch):
    import numpyro

    def fail(*args, **kwargs):
        raise ImportError("graphviz")

    monkeypatch.setattr(numpyro, "render_model", fail)


def test_model_in_words_gives_every_distribution_with_its_parameters(monkeypatch):
    without_graphviz(monkeypatch)
    result = picture("model", make_tree())
    [text] = result.figure.texts[:1]
    lines = text.get_text().splitlines()
    assert "mu ~ Gamma(concentration 2, rate 0.2)" in lines
    assert "sigma ~ Exponential(rate 1)" in lines
    assert "lam ~ Gamma, given alpha, beta, for each group" in lines
    assert "y ~ Poisson, given lam, for each row (observed)" in lines


def test_model_in_words_says_why_there_is_no_graph(monkeypatch):
    without_graphviz(monkeypatch)
    assert (
        "It is in words because the Python package graphviz is not installed" in picture("model", make_tree()).caption
    )


def test_model_caption_names_what_has_a_prior():
    assert "mu and sigma have priors" in picture("model", make_tree()).caption
    assert "lam has a prior" in picture("model", make_tree(pooling="pooled")).caption


def test_model_in_words_does_not_explain_a_graph(monkeypatch):
    without_graphviz(monkeypatch)
    assert "arrow" not in picture("model", make_tree()).how_to_read
