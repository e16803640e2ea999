"""A fit in the words of its report."""

from poolwise.report.wording import model_maths
from support import model_of


def test_maths_escapes_what_a_prior_was_given():
    priors = {"lam": {"name": "<b>", "rate": "<i>"}}
    lines = model_maths(model_of("pooled", "poisson"), priors, has_exposure=True)
    assert "λ ~ &lt;b&gt;(rate &lt;i&gt;)" in [str(formula) for formula, _ in lines]
    assert "r<sub>i</sub> = e<sub>i</sub> · λ" in [str(formula) for formula, _ in lines]
