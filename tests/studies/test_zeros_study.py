"""The study of zeros: its quadrature against the exact answers of the cookies, and in small."""

import json
from pathlib import Path

import pytest

from poolwise.model.likelihoods import LIKELIHOODS
from studies.zeros import MODELS, cell_elpd, study

EXACT = json.loads((Path(__file__).parents[1] / "exact_cookies.json").read_text())


@pytest.mark.parametrize("name", ["poisson", "negative_binomial"])
def test_quadrature_is_the_exact_answer_of_the_cookies(name, cookies):
    found = cookies.cell_multiplicity @ cell_elpd(LIKELIHOODS[name], cookies)
    assert found == pytest.approx(EXACT[f"unpooled {name}"]["elpd_loo"], abs=1e-6)


@pytest.mark.slow
def test_a_wrong_model_rarely_wins():
    found = study(15)
    wins = [each.winner for truth in MODELS for each in found[truth] if each.winner not in ("", truth)]
    assert len(wins) <= 3  # of 60: 5%
    assert not [each for each in found["poisson"] if each.winner]  # the Poisson is the limit of all others
