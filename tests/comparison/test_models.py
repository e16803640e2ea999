"""Runs to models: which settings make another model, which runs are pooled, and what the models are called."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from candidates import again, candidate, noisy
from poolwise.comparison.models import decisive, differing, heading, models_of

CONFIG = {
    "pooling.name": "hierarchical",
    "pooling.parameterisation": "standardised",
    "likelihood.name": "poisson",
    "prior.sigma.name": "Exponential",
    "prior.sigma.rate": "1.0",
    "sampler.num_samples": "4000",
    "device.x64": "True",
    "device.num_devices": "2",
    "plots.figures": "[]",
    "checks.exact": "True",
    "data.path": "data/cookies.csv",
    "seed": "0",
}
RUN = candidate("a", noisy(1)[:, 0], params=CONFIG)


def with_setting(key: str, value: str):
    return replace(RUN, run_id="other", params=CONFIG | {key: value})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", "1"),
        ("sampler.num_samples", "1000"),
        ("sampler.name", "exact"),
        ("pooling.parameterisation", "marginal"),
        ("device.x64", "False"),
        ("device.num_devices", "4"),
        ("plots.figures", "['rank']"),
        ("checks.exact", "False"),
        ("predict.exposure", "2.0"),
        ("data.path", "elsewhere/cookies.csv"),
    ],
)
def test_a_setting_that_leaves_the_posterior_makes_no_model(key, value):
    assert len(models_of([RUN, with_setting(key, value)])) == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pooling.name", "pooled"),
        ("pooling.population", "log_normal"),
        ("likelihood.name", "negative_binomial"),
        ("prior.sigma.rate", "2.0"),
        ("a_key.of_later", "1"),  # rather two models than one that is none
    ],
)
def test_a_setting_that_decides_the_posterior_makes_another_model(key, value):
    assert len(models_of([RUN, with_setting(key, value)])) == 2


def test_a_key_that_begins_like_another_is_not_of_its_section():
    assert decisive({"seeds": "1", "data_model.name": "x", "seed": "1", "data.name": "y"}) == {
        "seeds": "1",
        "data_model.name": "x",
    }


def test_another_grouping_is_another_model_that_bears_its_name():
    runs = [
        replace(RUN, run_id=column, data_sha256=column, params=CONFIG | {"data.group": column}) for column in ("a", "b")
    ]
    assert [model.name for model in models_of(runs)] == ["group=a", "group=b"]


def test_runs_of_a_model_are_pooled_and_suspect_ones_are_not():
    [model] = models_of([again(RUN, seed=1, verdict="suspect", ahead=50.0), RUN, again(RUN, seed=2, mcse=0.01)])
    assert [run.run_id for run in model.runs] == ["id-of-a-2", "id-of-a", "id-of-a-1"]  # the smallest error first
    assert (model.num_pooled, model.verdict) == (2, "trusted")
    assert model.rows.scores.total[0] == pytest.approx(RUN.pointwise["multiplicity"] @ RUN.pointwise["elpd"])


def test_equal_draws_count_once():
    # the same seed on another number of devices
    [model] = models_of(
        [replace(run, posterior_sha256="same") for run in (RUN, with_setting("device.num_devices", "1"))]
    )
    assert (len(model.runs), model.num_pooled) == (2, 1)
    assert model.rows.scores.mcse == RUN.mcse


def test_trusted_runs_that_disagree_make_the_model_suspect():
    # two modes, each run in one of them: 39 apart with an error of 0.05 each
    [model] = models_of([RUN, again(RUN, seed=1, ahead=39.0)])
    assert not model.agrees
    assert model.verdict == "suspect"
    [model] = models_of([RUN, again(RUN, seed=1, ahead=0.1)])  # z 1.4
    assert model.verdict == "trusted"


def test_runs_without_a_trusted_one_are_pooled_and_stay_suspect():
    [model] = models_of([replace(run, verdict="suspect") for run in (RUN, again(RUN, seed=1))])
    assert (model.num_pooled, model.verdict) == (2, "suspect")


@pytest.mark.parametrize(
    ("checks", "expected"),
    [
        (("passed", "not checked"), "passed"),
        (("passed", "failed"), "failed"),
        (("not checked", "not checked"), "not checked"),
    ],
)
def test_model_check_of_a_model_is_the_worst_that_is_known(checks, expected):
    [model] = models_of([again(RUN, seed=k, model_check=each) for k, each in enumerate(checks)])
    assert model.model_check == expected


def test_a_value_that_is_not_finite_leaves_no_elpd():
    elpd = np.append(noisy(1)[1:, 0], -np.inf)
    [model] = models_of([candidate("a", elpd), candidate("a", elpd, run_id="other")])
    assert not model.rows.scores.is_finite
    assert model.verdict == "suspect"


def test_labels_are_the_keys_that_distinguish_models_and_not_what_follows_from_them():
    runs = [
        candidate(
            "a",
            noisy(1)[:, 0],
            run_id=f"{likelihood}{rate}",
            params={"likelihood.name": likelihood, "seed": "0"} | more,
        )
        for likelihood, rate, more in [
            ("poisson", "1.0", {"prior.lam.rate": "1.0"}),
            ("poisson", "2.0", {"prior.lam.rate": "2.0"}),
            ("nb", "1.0", {"prior.lam.rate": "1.0", "prior.delta.scale": "0.5"}),  # follows from the likelihood
        ]
    ]
    models = models_of(runs)
    assert [model.labels for model in models] == [
        {"likelihood.name": "poisson", "prior.lam.rate": "1.0"},
        {"likelihood.name": "poisson", "prior.lam.rate": "2.0"},
        {"likelihood.name": "nb", "prior.lam.rate": "1.0"},
    ]
    assert [model.name for model in models] == ["poisson lam.rate=1.0", "poisson lam.rate=2.0", "nb lam.rate=1.0"]


def test_models_that_only_the_absence_of_a_key_distinguishes_have_it_as_a_label():
    runs = [candidate("a", noisy(1)[:, 0], run_id=str(k), params=more) for k, more in enumerate(({}, {"x.y": "1"}))]
    assert [model.labels for model in models_of(runs)] == [{"x.y": ""}, {"x.y": "1"}]
    assert len({model.name for model in models_of(runs)}) == 2


def test_one_model_is_called_by_the_name_of_its_run():
    [model] = models_of([RUN, again(RUN, seed=1)])
    assert (model.name, model.labels) == ("a", {})


@pytest.mark.parametrize(
    ("key", "head"),
    [
        ("pooling.name", "pooling"),
        ("prior.sigma.name", "sigma"),
        ("prior.sigma.rate", "sigma.rate"),
        ("data.group", "group"),
    ],
)
def test_heads_are_keys_without_what_is_understood(key, head):
    assert heading(key) == head


def test_only_the_config_keys_that_differ_are_kept():
    runs = [{"seed": "0", "data.name": "cookies", "prior.sigma.rate": "1.0"}, {"seed": "1", "data.name": "cookies"}]
    assert differing(runs) == {"seed": ["0", "1"], "prior.sigma.rate": ["1.0", ""]}


def test_groups_left_out_are_those_of_the_pooled_runs_that_have_them():
    table = pd.DataFrame({"group": ["a", "b"], "elpd": [-3.0, -4.0], "mcse": [0.3, 0.4], "suspect": False})
    [model] = models_of([RUN, again(RUN, seed=1, groups_out=table)])
    assert model.groups.scores.total[0] == -7.0
    assert model.groups.scores.mcse == pytest.approx(0.5)
    assert models_of([RUN])[0].groups is None
