"""What a run says of itself: its name, and metrics whose names MLflow takes and whose values stay apart."""

import dataclasses
import itertools

import numpy as np
import pandas as pd
import pytest
from mlflow.utils.validation import MAX_ENTITY_KEY_LENGTH, _validate_metric_name

from poolwise.checks import exact_agreement, leave_group_out, power_scaling
from poolwise.checks.base import FitView, Result
from poolwise.checks.gate import Verdict
from poolwise.checks.leave_group_out import GroupsOut
from poolwise.checks.loo import Loo
from poolwise.counts.cells import counts_from_rows
from poolwise.inference.predictive import NewGroup
from poolwise.runs.metrics import metric_name, metrics, parameter_metrics, run_name, tags
from support import model_of

VERDICT = Verdict(
    conditions=(),
    r_hat_max=1.001,
    ess_bulk_min=6000.0,
    ess_tail_min=5000.0,
    engine={"divergences": 3, "bfmi_min": 0.9, "tree_depth_hits": 2},
    sampling="3 divergences",
    pareto_k_max=0.4,
    pareto_k_bad=1,
)
LOO = Loo(
    elpd=-400.5,
    se=8.5,
    p_loo=5.5,
    mcse=0.05,
    cell_elpd=None,
    pareto_k=np.array([0.4, 0.2]),
    k_threshold=0.7,
    bad_rows=1,
)
PSIS = dataclasses.replace(LOO, pareto_k=np.array([0.93, 0.2]))
NEW_GROUP = NewGroup(np.array([9.0]), 1.0, 9.25, 3.75, pd.DataFrame(), is_informed_by_data=True)
BESIDE = exact_agreement.Agreement(
    pd.DataFrame({"z": [2.5]}), -0.02, -0.4, log_marginal=-410.5, z_max=2.5, limit=4.0, line=""
)
GROUPS_OUT = GroupsOut(
    labels=("a", "b"),
    elpd=np.array([-30.0, -34.0]),
    mcse=np.array([0.03, 0.04]),
    pareto_k=np.array([0.1, 0.9]),  # of b above the threshold
    r_hat=np.array([1.0, 1.0]),
    ess=np.array([5000.0, 5000.0]),
    divergences=np.array([0, 0]),
    num_chains=4,
    k_threshold=0.7,
)
SENSITIVITY = pd.DataFrame(
    {"prior.sigma": [0.31, 0.01], "prior": [0.31, 0.01], "likelihood": [0.02, 0.4]}, index=["sigma", "mu"]
).assign(diagnosis=[power_scaling.DOMINANT, power_scaling.NOTHING])
GROUPED = ("mean", "sd", "r_hat", "ess_bulk")
SECONDS = {"read": 0.5, "sample": 1.5}


def summary(*names: str) -> pd.DataFrame:
    """Parameters whose values tell them apart: 0, 1, 2, ..., and by column 0, 1000, 2000, 3000 on top."""
    numbers = range(len(names))
    columns = {column: [1000.0 * c + i for i in numbers] for c, column in enumerate(GROUPED)}
    return pd.DataFrame(columns, index=pd.Index(names, name="parameter"))


def view_of(*results: Result, **found) -> FitView:
    """A fit with one parameter, mu, of which nothing was checked beyond the gate but these."""
    fitted = {"counts": counts_from_rows(["a", "b"], [1, 2]), "model": None, "prior_values": {}, "tree": None}
    plain = {"loo": LOO, "verdict": VERDICT, "new_group": NEW_GROUP, "summary": summary("mu")}
    return FitView(**fitted | plain | {"results": {str(i): each for i, each in enumerate(results)}} | found)


def beyond_the_gate(*results: Result, **found) -> dict[str, float]:
    """The metrics that a fit of which nothing was checked beyond the gate does not have."""
    plain = metrics(view_of(), seconds=SECONDS, total=6.0)
    told = metrics(view_of(*results, **found), seconds=SECONDS, total=6.0)
    return {name: value for name, value in told.items() if name not in plain}


@pytest.mark.parametrize(
    ("pooling", "likelihood", "name"),
    [
        ("pooled", "poisson", "pooled-pois"),
        ("unpooled", "poisson", "unpooled-pois"),
        ("hierarchical", "negative_binomial", "hier-nb"),
    ],
)
def test_run_name_says_the_variant(pooling, likelihood, name):
    overrides = [f"pooling={pooling}", f"likelihood={likelihood}"]  # told already
    assert run_name(model_of(pooling, likelihood), overrides) == name


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("sampler=quick", "quick"),
        ("prior=heavy_tailed", "heavy_tailed"),
        ("prior/sigma=half_normal", "sigma=half_normal"),
        ("prior.sigma.rate=2", "sigma.rate=2"),
        ("sampler.num_samples=8000", "num_samples=8000"),
        ("predict.exposure=2", "exposure=2"),
        ("pooling.parameterisation=centred", "parameterisation=centred"),
        ("seed=3", "seed=3"),
        ("+seed=3", "seed=3"),
        ("++sampler.num_samples=8000", "num_samples=8000"),
    ],
)
def test_run_name_tells_an_override_shortly(override, told):
    assert run_name(model_of("hierarchical", "poisson"), [override]) == f"hier-pois {told}"


@pytest.mark.parametrize(
    "override",
    [
        *("data=table", "data.path=a.csv", "data.exposure=hours", "device=gpu", "device.num_devices=2"),
        *(
            "tracking.uri=https://h",
            "tracking=local",
            "plots=none",
            "checks.exact=false",
            "hydra.verbose=true",
            "~plots",
            "++data.name=a",
        ),
    ],
)
def test_run_name_leaves_out_what_does_not_tell_runs_apart(override):
    assert run_name(model_of("hierarchical", "poisson"), [override]) == "hier-pois"


def test_run_name_keeps_the_order_of_the_command_line():
    name = run_name(
        model_of("pooled", "negative_binomial"), ["seed=3", "likelihood=negative_binomial", "sampler=quick"]
    )
    assert name == "pooled-nb seed=3 quick"


@pytest.mark.parametrize("label", ["1", "Köln", "日本", "a b", "a:b", "a.b", "a-b", "a_b"])
def test_metric_name_keeps_what_mlflow_takes(label):
    assert metric_name(f"lam.{label}") == f"lam.{label}"


@pytest.mark.parametrize(
    ("label", "written"),
    [
        ("1/2", "1_2"),
        ("50%", "50_"),
        ("a\tb\n", "a_b_"),
        ("<b>", "_b_"),
        ("🍪", "_"),
        ("e\u0301", "e_"),
        ("a\\b", "a_b"),
    ],
)
def test_metric_name_writes_every_other_character_as_a_stroke(label, written):
    assert metric_name(f"lam.{label}") == f"lam.{written}"


ODD = ["1/2", "..", "a//b", "../up", "/", "\x00", "'; drop", "🍪", " lead", "trail ", "e\u0301", "²", "%", "\u2028"]


@pytest.mark.parametrize("label", ODD)
def test_mlflow_takes_the_metrics_of_any_label(label):
    for name in parameter_metrics(summary(f"lam.{label}")):
        _validate_metric_name(name)  # what the client asks before it sends


def test_mlflow_takes_the_metrics_of_a_long_label():
    names = parameter_metrics(summary("lam." + "x" * 300))
    assert max(map(len, names)) <= MAX_ENTITY_KEY_LENGTH


def test_parameter_metrics_are_named_by_statistic_and_parameter():
    assert parameter_metrics(summary("mu", "lam.1")) == {
        "mean/mu": 0.0,
        "mean/lam.1": 1.0,
        "sd/mu": 1000.0,
        "sd/lam.1": 1001.0,
        "r_hat/mu": 2000.0,
        "r_hat/lam.1": 2001.0,
        "ess_bulk/mu": 3000.0,
        "ess_bulk/lam.1": 3001.0,
    }


@pytest.mark.parametrize("labels", [*itertools.permutations(["a/b", "a+b", "a_b"])], ids=" ".join)
def test_labels_that_become_the_same_are_kept_apart(labels):
    found = parameter_metrics(summary(*(f"lam.{label}" for label in labels)))
    assert [value for name, value in found.items() if name.startswith("mean/")] == [0.0, 1.0, 2.0]


@pytest.mark.parametrize("labels", [*itertools.permutations(["a/b", "a+b", "a_b_1"])], ids=" ".join)
def test_labels_kept_apart_do_not_meet_a_third(labels):
    found = parameter_metrics(summary(*(f"lam.{label}" for label in labels)))
    assert [value for name, value in found.items() if name.startswith("mean/")] == [0.0, 1.0, 2.0]


def test_parameters_without_a_mean_have_no_metrics():
    table = summary("mu", "alpha", "lam.1")
    table.loc["alpha", ["mean", "sd"]] = float("nan")  # as checks.summarise leaves them
    assert {name.partition("/")[2] for name in parameter_metrics(table)} == {"mu", "lam.1"}


def test_at_most_fifty_parameters_are_metrics():
    # DESIGN: up to 50 parameters, the table holds all
    found = parameter_metrics(summary("mu", *(f"lam.{i}" for i in range(60))))
    assert [name for name in found if name.startswith("sd/")] == ["sd/mu", *(f"sd/lam.{i}" for i in range(49))]


def test_fifty_parameters_are_counted_without_those_that_have_no_mean():
    table = summary("alpha", "beta", *(f"lam.{i}" for i in range(50)))
    table.loc[["alpha", "beta"], "mean"] = float("nan")
    assert "mean/lam.49" in parameter_metrics(table)


def test_metrics_have_the_names_of_the_contract():
    # DESIGN: headline metrics without a slash; elpd_loo's own Monte Carlo error; seconds by stage
    found = metrics(view_of(), seconds=SECONDS, total=6.0)
    found = {name: value for name, value in found.items() if not name.endswith("/mu")}
    assert found == {
        "elpd_loo": -400.5,
        "elpd_loo_se": 8.5,
        "elpd_loo_mcse": 0.05,
        "p_loo": 5.5,
        "pareto_k_max": 0.4,
        "pareto_k_bad": 1,
        "r_hat_max": 1.001,
        "ess_bulk_min": 6000.0,
        "ess_tail_min": 5000.0,
        "divergences": 3,
        "bfmi_min": 0.9,
        "tree_depth_hits": 2,
        "ess_per_second": 4000.0,  # 6000 in 1.5 s of sampling
        "seconds_total": 6.0,
        "loo_replaced": 0,
        "loo_refitted": 0,
        "pareto_k_max_psis": 0.4,
        "new_group/mean": 9.25,
        "new_group/sd": 3.75,
        "seconds/read": 0.5,
        "seconds/sample": 1.5,
    }


def test_metrics_hold_those_by_parameter():
    found = metrics(view_of(), seconds=SECONDS, total=6.0)
    assert found.items() >= parameter_metrics(summary("mu")).items()


def test_a_verdict_of_many_fields_is_told_in_full():
    # every number of a verdict is a metric under its own name
    numbers = {field.name for field in dataclasses.fields(Verdict)} - {"conditions", "engine", "sampling"}
    found = metrics(view_of(), seconds=SECONDS, total=6.0)
    assert {name: found[name] for name in numbers} == {name: getattr(VERDICT, name) for name in numbers}


def test_draws_that_were_stored_have_no_effective_draws_a_second():
    assert "ess_per_second" not in metrics(view_of(), seconds={"read": 0.5}, total=6.0)


def test_the_exact_answer_gives_metrics_of_its_own():
    assert beyond_the_gate(exact_agreement.result(BESIDE)) == {
        "log_marginal_likelihood": -410.5,
        "exact_z_max": 2.5,
        "exact_elpd_loo_difference": -0.02,
    }


def test_groups_left_out_give_metrics_of_their_own():
    # -30 - 34; sqrt(2) * sd([-30, -34]); sqrt(0.03^2 + 0.04^2); b alone has a Pareto k above the threshold
    assert beyond_the_gate(leave_group_out.result(GROUPS_OUT)) == pytest.approx(
        {
            "elpd_leave_group_out": -64.0,
            "elpd_leave_group_out_se": 4.0,
            "elpd_leave_group_out_mcse": 0.05,
            "leave_group_out_suspect": 1,
        }
    )


def test_integrated_values_are_counted_with_the_k_that_psis_had():
    found = metrics(view_of(loo=dataclasses.replace(LOO, psis=PSIS)), seconds=SECONDS, total=6.0)
    assert (found["loo_replaced"], found["pareto_k_max_psis"]) == (2, 0.93)


def test_the_metrics_and_tags_of_any_check_are_taken():
    made_up = Result(metrics={"made_up": 0.5}, tags={"made_up": "yes"})
    assert beyond_the_gate(made_up) == {"made_up": 0.5}
    assert tags(view_of(made_up)) == {"made_up": "yes"}


def test_what_lies_above_is_a_metric_by_count():
    new = dataclasses.replace(NEW_GROUP, above=((12, 0.2), (0, 1.0)))
    assert beyond_the_gate(new_group=new) == {"new_group/above_12": 0.2, "new_group/above_0": 1.0}


def test_the_metrics_of_a_group_of_the_data_are_not_those_of_a_new_one():
    new = dataclasses.replace(NEW_GROUP, label="b", above=((12, 0.2),))
    found = metrics(view_of(new_group=new), seconds=SECONDS, total=6.0)
    assert {name for name in found if "group/" in name} == {"group/mean", "group/sd", "group/above_12"}
    assert tags(view_of(new_group=new)) == {"predicted_group": "b"}


def test_mlflow_takes_the_metrics_of_every_check():
    found = view_of(exact_agreement.result(BESIDE), leave_group_out.result(GROUPS_OUT))
    for name in metrics(found, seconds=SECONDS, total=6.0):
        _validate_metric_name(name)


def test_a_run_without_more_checks_has_no_tag_of_them():
    assert tags(view_of()) == {}


@pytest.mark.parametrize(("z_max", "word"), [(2.5, "agrees"), (4.0, "agrees"), (4.1, "differs"), (np.nan, "differs")])
def test_a_tag_says_whether_the_fit_agrees_with_the_exact_answer(z_max, word):
    # the limit is 4; a fit of which nothing is known does not agree
    assert tags(view_of(exact_agreement.result(dataclasses.replace(BESIDE, z_max=z_max)))) == {"exact": word}


def test_a_tag_names_the_prior_that_dominates_and_what():
    assert power_scaling.tag(SENSITIVITY) == "prior.sigma: sigma"
    assert power_scaling.tag(SENSITIVITY.assign(diagnosis=power_scaling.NOTHING)) == ""
