"""Every check of `findings.CHECKS` keeps to what is taken from all of them alike."""

import math
from dataclasses import replace

import numpy as np
import pytest
from mlflow.utils.validation import _validate_metric_name, _validate_tag_name

from poolwise.checks.base import Check, Settings
from poolwise.checks.findings import CHECKS, checked, examine
from poolwise.config import Checks
from poolwise.counts.cells import counts_from_rows
from poolwise.figures.names import NAMES
from poolwise.model.priors import prior_values
from support import ONE_DEVICE, PRIORS, SAMPLER, fit_cookies, model_of

SHORT = replace(SAMPLER, num_warmup=300, num_samples=500, checkpoint_every=500)
COUNTS = counts_from_rows(np.repeat(["a", "b\n", "ü"], 6), [7, 9, 0, 11, 6, 9, 12, 10, 15, 9, 12, 8, 4, 7, 5, 6, 3, 5])


@pytest.fixture(scope="module")
def plain():
    """A fit with no check."""
    draws = fit_cookies(COUNTS, "unpooled", "poisson", sampler=SHORT)
    values = prior_values(PRIORS, sites=("lam",))
    settings = Settings(seed=0, sampler=SHORT, device=ONE_DEVICE, num_draws=100)
    return examine(model_of("unpooled", "poisson"), COUNTS, values, draws, settings), settings


@pytest.fixture(scope="module")
def result_of(plain):
    """`result_of[check.name]`."""
    view, settings = plain
    return checked(view, replace(settings, checks=frozenset(check.key for check in CHECKS))).results


def test_only_a_check_that_decides_adds_to_the_verdict(result_of):
    # the verdict is reported before the other checks run
    assert {name for name, result in result_of.items() if result.conditions} <= {
        check.name for check in CHECKS if check.decides
    }


def test_names_and_keys_are_distinct():
    assert len({check.name for check in CHECKS}) == len({check.key for check in CHECKS}) == len(CHECKS)


def test_every_condition_of_the_gate_has_a_figure(plain):
    view, _ = plain
    assert view.verdict.conditions and {each.shown_in for each in view.verdict.conditions} <= set(NAMES)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
class TestEvery:
    def test_is_switched_by_a_key_of_the_config(self, check: Check):
        assert Checks.model_fields[check.key].annotation is bool

    def test_is_absent_and_listed_when_it_is_off(self, check: Check, plain):
        view, _ = plain
        assert check.name not in view.results
        assert check.key in view.switched_off

    def test_gives_finite_metrics_that_mlflow_takes(self, check: Check, result_of):
        for name, value in result_of[check.name].metrics.items():
            _validate_metric_name(name)
            assert math.isfinite(value), name

    def test_gives_tags_that_mlflow_takes(self, check: Check, result_of):
        for name, value in result_of[check.name].tags.items():
            _validate_tag_name(name)
            assert value and isinstance(value, str)

    def test_says_sentences_of_one_printable_line(self, check: Check, result_of):
        result = result_of[check.name]
        for line in (*result.lines, *(each.sentence for each in (*result.conditions, *result.model_conditions))):
            assert line.isprintable() and not line.endswith("..")

    def test_gives_a_reason_exactly_where_a_condition_fails(self, check: Check, result_of):
        result = result_of[check.name]
        for each in (*result.conditions, *result.model_conditions):
            assert each.name and each.value and each.limit
            assert bool(each.sentence) == (not each.passed)

    def test_names_figures_that_exist(self, check: Check, result_of):
        result = result_of[check.name]
        named = {each.shown_in for each in (*result.conditions, *result.model_conditions)}
        assert named | set(result.shown_in) <= {"", *NAMES}

    def test_gives_tables_that_are_written(self, check: Check, result_of, tmp_path):
        for name, table in result_of[check.name].tables.items():
            assert name.isidentifier() and table.index.name and len(table)
            table.to_csv(tmp_path / f"{name}.csv")

    def test_tables_and_metrics_are_its_own(self, check: Check, result_of):
        others = [result for name, result in result_of.items() if name != check.name]
        for each in others:
            assert not each.tables.keys() & result_of[check.name].tables.keys()
            assert not each.metrics.keys() & result_of[check.name].metrics.keys()
