"""Priors in the unit of the data: words to numbers, and the overrides that say the same."""

import numpy as np
import pytest
import yaml

from poolwise.counts.cells import counts_from_rows
from poolwise.model.count_model import SITES
from poolwise.model.data_scale import IN_UNIT_OF_DATA, overrides, resolved
from poolwise.model.priors import faults_of, law
from support import ROOT

TABLE = counts_from_rows(list("aab"), [3, 7, 0], [100.0, 300.0, 100.0])  # 10.5 / 500 = 0.021


def choice(site: str, name: str) -> dict:
    return yaml.safe_load((ROOT / "conf" / "prior" / site / f"{name}.yaml").read_text())


def test_words_become_the_pooled_rate_and_numbers_stay():
    found = resolved({"mu": choice("mu", "scaled"), "sigma": choice("sigma", "scaled")}, TABLE)
    assert found == {
        "mu": {"name": "LogNormal", "loc": -3.86, "scale": 1.5},  # log(0.021) = -3.863
        "sigma": {"name": "HalfNormal", "scale": 0.021},
    }
    assert resolved(found, TABLE) == found


def test_a_table_without_an_event_has_a_scale():
    found = resolved({"mu": choice("mu", "scaled")}, counts_from_rows(["a"], [0], [1e6]))
    assert found["mu"]["loc"] == pytest.approx(np.log(0.5e-6), rel=5e-3)


@pytest.mark.parametrize("site", IN_UNIT_OF_DATA)
def test_choice_of_the_set_is_what_the_overrides_say(site):
    name, values = IN_UNIT_OF_DATA[site]
    assert choice(site, "scaled") == choice(site, name) | values
    assert not faults_of(SITES[site], choice(site, "scaled"))


def test_overrides_name_the_choice_and_its_numbers():
    assert overrides(["mu", "sigma", "delta"], TABLE) == (
        "prior/mu=log_normal prior.mu.loc=-3.86 prior.mu.scale=1.5 prior/sigma=half_normal prior.sigma.scale=0.021"
    )


def test_spread_of_the_set_is_the_stated_one():
    mu = law("LogNormal", {"loc": 0.0, "scale": 1.5})
    assert mu.ppf([0.025, 0.975]) == pytest.approx([1 / 19, 19], rel=0.01)
    assert law("HalfNormal", {"scale": 1.0}).ppf(0.95) == pytest.approx(1.96, abs=0.001)


@pytest.mark.parametrize(("site", "key", "word"), [("sigma", "scale", "log_rate"), ("mu", "loc", "lograte")])
def test_a_word_that_does_not_fit_is_refused(site, key, word):
    (fault,) = faults_of(SITES[site], choice(site, "scaled") | {key: word})
    assert f"prior.{site}.{key} is {word}; it must be" in fault
