"""The rate that a group's own counts show: its mean count over what the model expects per unit of the rate."""

from dataclasses import replace

import numpy as np
import pytest

from pictures import CHAINS, DRAWS, make_tree, view_of
from poolwise.figures.base import Drawing
from support import model_of

COUNTS = np.random.default_rng(4).poisson(np.repeat([0.6, 2.0, 6.0], 10))
SITES = {"zi": 0.3, "hurdle": 0.3, "delta": 0.5, "phi": 4.0}


def drawing(likelihood, **table):
    view, model = view_of(make_tree(counts=COUNTS, **table)), model_of("hierarchical", likelihood)
    shape = ("chain", "draw"), (CHAINS, DRAWS)
    params = {name: (shape[0], np.full(shape[1], SITES[name])) for name in model.likelihood.parameters}
    found = replace(view, model=model)
    vars(found)["posterior"] = view.posterior.assign(params)
    return Drawing(found)


@pytest.mark.parametrize("likelihood", ["poisson", "negative_binomial"])
def test_a_plain_count_has_its_rate(likelihood):
    found = drawing(likelihood)
    assert np.all(found.count_per_rate == 1) and found.own_words() == ""


@pytest.mark.parametrize("likelihood", ["zero_inflated_poisson", "zero_inflated_negative_binomial"])
def test_inflation_takes_its_share_of_every_group(likelihood):
    found = drawing(likelihood)
    np.testing.assert_allclose(found.count_per_rate, 0.7)
    np.testing.assert_allclose(found.own, COUNTS.reshape(3, 10).mean(axis=1) / 0.7)
    assert found.own_words() == " Own means are divided by 0.70, the expected count at a rate of 1."


@pytest.mark.parametrize("exposure", [None, 2.0])
@pytest.mark.parametrize("likelihood", ["hurdle_poisson", "hurdle_negative_binomial"])
def test_a_hurdle_scales_each_group_by_the_mean_of_its_positive_counts(likelihood, exposure):
    found = drawing(likelihood, exposure=exposure)
    rate = (exposure or 1.0) * found.view.posterior["lam"].values  # (chain, draw, group)
    zero = np.exp(-rate) if likelihood == "hurdle_poisson" else (1 + rate / 4) ** -4.0
    mean = 0.7 * rate / (1 - zero)
    np.testing.assert_allclose(found.count_per_rate, (mean.mean((0, 1)) / rate.mean((0, 1))), rtol=1e-9)
    assert "the expected count per unit of the rate, " in found.own_words()
