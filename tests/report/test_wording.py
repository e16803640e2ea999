"""A fit in the words of its report."""

from poolwise.counts.cells import Columns, counts_from_rows
from poolwise.model.likelihoods import EVERY_LIKELIHOOD
from poolwise.model.poolings import EVERY_POOLING
from poolwise.report.wording import model_maths, unit
from support import model_of


def test_maths_escapes_what_a_prior_was_given():
    priors = {"lam": {"name": "<b>", "rate": "<i>"}}
    lines = model_maths(model_of("pooled", "poisson"), priors, has_exposure=True)
    assert "λ ~ &lt;b&gt;(rate &lt;i&gt;)" in [str(formula) for formula, _ in lines]
    assert "r<sub>i</sub> = e<sub>i</sub> · λ" in [str(formula) for formula, _ in lines]


def test_unit_of_a_rate_names_what_it_is_per():
    def of(*columns):
        return unit(counts_from_rows(["a"], [3], [500.0], columns=Columns(*columns)))

    assert of("ward", "falls", "patient_days") == "falls per unit of patient days"
    assert of("ward", "falls", "patient_days", 1000.0) == "falls per 1000 patient days"


def test_words_beside_a_formula_are_plain_text():
    words = {words for each in (*EVERY_LIKELIHOOD, *EVERY_POOLING) for _, words in each.formula}
    assert not [each for each in words if "<" in each or "&" in each]  # they are escaped
