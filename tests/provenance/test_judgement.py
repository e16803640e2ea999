"""Two runs to one judgement: every clause of the order, the threshold, false alarms, and the words."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from poolwise.checks.agreement import threshold
from poolwise.checks.conditions import R_HAT_MAX
from poolwise.checks.summary import summarise
from poolwise.provenance.differences import DEVICE_BITS, Difference, RunInputs, differences
from poolwise.provenance.fingerprints import EARLIER, SOURCE, decides_draws, source_files
from poolwise.provenance.judgement import RunResults, judge, lines
from poolwise.provenance.stack import DRAW_LIBRARIES

DRAW_FILES = [*filter(decides_draws, source_files(SOURCE))]
SETTINGS = {
    "data": {"name": "cookies", "path": "data/cookies.csv", "group": "location"},
    "pooling": {"name": "hierarchical"},
    "likelihood": {"name": "poisson"},
    "prior": {
        "mu": {"name": "Gamma", "concentration": 2.0, "rate": 0.2},
        "sigma": {"name": "Exponential", "rate": 1.0},
    },
    "sampler": {"num_samples": 4000, "num_chains": 4, "checkpoint_every": 1000},
    "device": {"platform": "cpu", "num_devices": 2, "chain_method": "map", "x64": True},
    "checks": {"progress": 0},
    "predict": {"num_draws": 1000},
    "plots": {"figures": ["rank", "energy"]},
    "tracking": {"uri": None},
    "sweep": {"dry_run": False},
    "seed": 0,
    "reuse": None,
}
FACTS = RunInputs(
    settings=SETTINGS,
    data_sha256="1a2b3c4d5e6f7a8b",
    code="clean 1a2b3c",
    files={name: f"sha of {name}" for name in (*DRAW_FILES, "__init__.py", "report/page.py", "text.py")},
    libraries={**dict.fromkeys(DRAW_LIBRARIES, "1.0"), "scipy": "1.16.0", "arviz": "1.3", "pytest": "8"},
    stack={
        **dict.fromkeys(DRAW_LIBRARIES, "1.0"),
        **{"python": "3.12.1", "arviz": "1.3", "system": "Linux-6.1", "cpu": "Xeon", "cores": 2, "platform": "cpu"},
        **{"num_devices": 2, "chain_method": "map", "x64": True, "xla_flags": "", "devices": ["cpu:0", "cpu:1"]},
        "jax_flags": {"jax_default_prng_impl": "threefry2x32", "jax_disable_jit": False},
    },
)
CODE = Difference("code", "model/count_model.py has changed", True)
LIBRARY = Difference("library", "numpyro 0.22.0 there, 0.23.0 here", True)
DEVICE = Difference("device", "device.x64 is True there, False here", True)
CONFIG = Difference("config", "prior.mu.rate is 0.2 there, 0.3 here", True)
DATA = Difference("data", "the counts differ (data_sha256 1a there, 3c here)", True)
PLOTS = Difference("config", "plots.figures is [rank] there, [energy] here", False)
REPORT = Difference("code", "report/page.py has changed", False)
SCIPY = Difference("library", "1 other distribution differs: scipy 1.16.0 -> 1.16.1", False)
CORES = Difference("device", "cores is 2 there, 4 here", False)


def changed(**changes) -> RunInputs:
    """The facts with other settings (dotted keys, `__` for the dot), files, libraries or stack entries."""
    facts = {"settings": SETTINGS, "files": FACTS.files, "libraries": FACTS.libraries, "stack": FACTS.stack}
    for key, value in changes.items():
        where, *path = key.split("__")
        if path:
            facts[where] = updated(facts[where], path, value)
        else:
            facts[where] = value
    return replace(FACTS, **facts)


def updated(nested: dict, path: list[str], value) -> dict:
    first, *rest = path
    return {**nested, first: updated(nested.get(first, {}), rest, value) if rest else value}


def found(other: RunInputs, one: RunInputs = FACTS) -> list[tuple[str, str, bool]]:
    return [(each.kind, each.text, each.decides_draws) for each in differences(one, other)]


def outcome(digest: str = "a", *, elpd: float = -394.79, elpd_mcse: float = 0.03, **columns) -> RunResults:
    """A run with mu, alpha and lam.1: means 9, 2, 10 with errors 0.03 and 0.04; `mean={"mu": 9.1}` moves one."""
    table = pd.DataFrame(
        {
            "mean": [9.0, np.nan, 10.0],
            "sd": [1.0, np.nan, 2.0],
            "mcse_mean": [0.03, np.nan, 0.04],
            "mcse_sd": [0.02, np.nan, 0.03],
            "ess_bulk": 1000.0,
            "ess_tail": 1000.0,
            "r_hat": 1.001,
        },
        index=pd.Index(["mu", "alpha", "lam.1"], name="parameter"),
    )
    for column, values in columns.items():
        for name, value in values.items():
            table.loc[name, column] = value
    return RunResults({"mu": f"mu {digest}", "all": digest}, table, elpd, elpd_mcse, num_chains=4)


A, B = outcome("a"), outcome("b")
FAR = outcome("b", mean={"mu": 9.5})  # 0.5 / (0.03 sqrt 2) = 11.8 errors


# What differs


def test_differences_of_a_run_to_itself_are_none():
    assert differences(FACTS, FACTS) == []


def test_differences_see_through_the_way_a_config_is_written():
    # 2 and 2.0 are one prior; a tuple in memory is a list in the file
    written = changed(settings__prior__mu__concentration=2, settings__plots__figures=("rank", "energy"))
    assert found(written) == []


@pytest.mark.parametrize(
    ("changes", "kind", "text", "decides_draws"),
    [
        ({"data_sha256": "3c4d"}, "data", "the counts differ (data_sha256 1a2b3c4d5e6f there, 3c4d here)", True),
        ({"settings__data__path": "b.csv"}, "data", "data.path is data/cookies.csv there, b.csv here", False),
        ({"settings__prior__mu__rate": 0.3}, "config", "prior.mu.rate is 0.2 there, 0.3 here", True),
        ({"settings__prior__mu__low": 1}, "config", "prior.mu.low is absent there, 1 here", True),
        ({"settings__seed": 1}, "config", "seed is 0 there, 1 here", True),
        ({"settings__pooling__name": "pooled"}, "config", "pooling.name is hierarchical there, pooled here", True),
        (
            {"settings__likelihood__name": "negative_binomial"},
            "config",
            "likelihood.name is poisson there, negative_binomial here",
            True,
        ),
        ({"settings__sampler__num_samples": 9}, "config", "sampler.num_samples is 4000 there, 9 here", True),
        ({"settings__sampler__checkpoint_every": 9}, "config", "sampler.checkpoint_every is 1000 there, 9 here", False),
        ({"settings__predict__num_draws": 9}, "config", "predict.num_draws is 1000 there, 9 here", False),
        ({"settings__checks__progress": 9}, "config", "checks.progress is 0 there, 9 here", False),
        (
            {"settings__plots__figures": ["rank"]},
            "config",
            "plots.figures is [rank, energy] there, [rank] here",
            False,
        ),
        ({"settings__tracking__uri": "x"}, "config", "tracking.uri is null there, x here", False),
        ({"settings__sweep__dry_run": True}, "config", "sweep.dry_run is False there, True here", False),
        ({"settings__reuse": True}, "config", "reuse is null there, True here", False),
        ({"stack__python": "3.13"}, "library", "python 3.12.1 there, 3.13 here", True),
        ({"stack__x64": False}, "device", "device.x64 is True there, False here", True),
        ({"stack__chain_method": "vmap"}, "device", "device.chain_method is map there, vmap here", True),
        ({"stack__platform": "gpu"}, "device", "device.platform is cpu there, gpu here", True),
        ({"stack__cpu": "EPYC"}, "device", "cpu is Xeon there, EPYC here", True),
        ({"stack__xla_flags": "--fast"}, "device", "xla_flags is empty there, --fast here", True),
        (
            {"stack__jax_flags__jax_disable_jit": True},
            "device",
            "jax_flags.jax_disable_jit is False there, True here",
            True,
        ),
        ({"stack__num_devices": 1}, "device", "device.num_devices is 2 there, 1 here", False),
        ({"stack__cores": 4}, "device", "cores is 2 there, 4 here", False),
        ({"stack__system": "Darwin"}, "device", "system is Linux-6.1 there, Darwin here", False),
        ({"stack__devices": ["cpu:0"]}, "device", "devices is [cpu:0, cpu:1] there, [cpu:0] here", False),
        ({"stack__device_kind": "cpu"}, "device", "device_kind is not recorded there", True),
        ({"stack__host": "b"}, "device", "host is not recorded there", False),
    ],
)
def test_differences_name_the_one_thing_that_differs(changes, kind, text, decides_draws):
    facts = {key: value for key, value in changes.items() if "__" in key}
    other = replace(changed(**facts), **{key: value for key, value in changes.items() if "__" not in key})
    assert found(other) == [(kind, text, decides_draws)]


def test_differences_hold_the_device_as_it_was_used_not_as_it_was_asked_for():
    assert found(changed(settings__device__num_devices=None)) == []


def test_differences_know_every_key_of_the_stack_that_bits_rest_on():
    assert {"platform", "cpu", "x64", "chain_method", "xla_flags", "jax_flags"} <= set(DEVICE_BITS)
    assert not {"python", "jax", "jaxlib", "numpyro", "numpy"} & set(DEVICE_BITS)


def test_differences_are_sorted_by_kind_and_within_it_by_what_decides_draws():
    other = changed(
        settings__data__path="b.csv",
        settings__checks__progress=9,
        settings__seed=1,
        files={**FACTS.files, "__init__.py": "new", "model/count_model.py": "new"},
        libraries={**FACTS.libraries, "scipy": "2"},
        stack={**FACTS.stack, "numpyro": "2", "cores": 4, "x64": False},
    )
    told = [(kind, decides) for kind, _, decides in found(replace(other, data_sha256="3c"))]
    kinds = ("data", "config", "code", "library", "device")
    assert told == [(kind, decides) for kind in kinds for decides in (True, False)]


def test_differences_take_the_names_of_two_runs():
    told = differences(FACTS, changed(settings__seed=1), names=("in 1a2b3c", "in 4d5e6f"))
    assert [each.text for each in told] == ["seed is 0 in 1a2b3c, 1 in 4d5e6f"]


def test_files_that_decide_draws_are_told_from_the_others():
    files = {
        **FACTS.files,
        "inference/engines/nuts.py": "new",
        "model/count_model.py": "new",
        "text.py": "new",
        "added.py": "new",
    }
    del files["report/page.py"]
    assert found(changed(files=files)) == [
        ("code", "inference/engines/nuts.py, model/count_model.py have changed", True),
        ("code", "added.py (only here), report/page.py (only there), text.py have changed", False),
    ]


def test_files_beyond_five_are_counted():
    more = {**FACTS.files, **{f"new{n}.py": "new" for n in range(7)}}
    ((_, text, _),) = found(changed(files=more))
    assert text.endswith("new4.py (only here) and 2 more have changed") and "new5" not in text


@pytest.mark.parametrize("recorded", [{}, {"counts/cells.py": "sha of counts/cells.py"}, {"data.py": "sha of data.py"}])
def test_code_without_files_is_told_by_its_state_and_cannot_be_excluded(recorded):
    older = replace(FACTS, files=recorded, code="changed since 9f9f")
    assert found(FACTS, older) == [("code", "changed since 9f9f there, clean 1a2b3c here", True)]


def test_code_of_one_commit_without_files_is_the_same():
    assert found(FACTS, replace(FACTS, files={})) == []


def test_code_changed_since_one_commit_may_have_been_changed_in_two_ways():
    one, other = (replace(FACTS, files=files, code="changed since 9f9f") for files in ({}, FACTS.files))
    assert found(other, one) == [("code", "changed since 9f9f in both runs; the changed files are not recorded", True)]


def test_code_of_which_only_the_draw_modules_were_recorded_is_compared_by_them():
    partial = {name: FACTS.files[name] for name in DRAW_FILES}
    assert found(FACTS, replace(FACTS, files=partial)) == []
    assert found(FACTS, replace(FACTS, files=partial, code="clean 0")) == [
        ("code", "clean 0 there, clean 1a2b3c here", False)
    ]
    assert found(FACTS, replace(FACTS, files={**partial, "model/count_model.py": "old"}, code="clean 0")) == [
        ("code", "model/count_model.py has changed", True)
    ]


@pytest.mark.parametrize("more", [(), ("__init__.py", "report.py", "words.py")], ids=["draw files", "all files"])
def test_code_of_an_earlier_version_may_move_draws_and_is_told(more):
    # its files had other names; those that decided draws are known by them
    older = replace(FACTS, files={name: f"sha of {name}" for name in (*EARLIER, *more)}, code="clean 0")
    first, *others = found(FACTS, older)
    assert (first[0], first[2]) == ("code", True)
    if more:
        assert first[1].startswith("checkpoint.py (only there), counts/cells.py (only here), ")
        ((kind, text, decides),) = others
        assert (kind, decides) == ("code", False)
        assert "report.py (only there)" in text and "__init__.py" not in text
    else:
        assert (first[1], others) == ("clean 0 there, clean 1a2b3c here", [])


def test_two_runs_of_an_earlier_version_are_compared_by_its_files():
    files = {name: f"sha of {name}" for name in (*EARLIER, "report.py")}
    one, other = (replace(FACTS, files=files | {name: "new"}) for name in ("report.py", "model.py"))
    assert found(other, one) == [("code", "model.py has changed", True), ("code", "report.py has changed", False)]
    partial = replace(FACTS, files={name: files[name] for name in EARLIER}, code="changed since 9f9f")
    assert differences(partial, partial) == []


def test_code_of_which_all_draw_modules_were_recorded_is_closed():
    one = replace(FACTS, files={name: FACTS.files[name] for name in DRAW_FILES}, code="changed since 9f9f")
    assert differences(one, one) == []


def test_commits_with_the_same_files_are_the_same_code():
    assert found(replace(FACTS, code="clean 0")) == []


def test_libraries_that_decide_draws_are_told_from_the_others():
    versions = {"numpyro": "2.0", "jaxlib": "2.0"}
    libraries = {**FACTS.libraries, **versions, "scipy": "1.17", "new": "1"}
    del libraries["pytest"]
    assert found(changed(libraries=libraries, stack={**FACTS.stack, **versions})) == [
        ("library", "jaxlib 1.0 there, 2.0 here; numpyro 1.0 there, 2.0 here", True),
        ("library", "3 other distributions differ: new absent -> 1, pytest 8 -> absent, scipy 1.16.0 -> 1.17", False),
    ]


def test_version_of_a_library_in_the_stack_is_no_matter_of_the_device():
    other = changed(stack__arviz="1.4", libraries__arviz="1.4")
    assert found(other) == [("library", "1 other distribution differs: arviz 1.3 -> 1.4", False)]


def test_versions_are_taken_from_the_stack_and_where_it_has_none_from_the_libraries():
    older = changed(libraries={}, stack__numpyro="0.9")
    assert found(FACTS, older) == [("library", "numpyro 0.9 there, 1.0 here", True)]
    bare = {key: value for key, value in FACTS.stack.items() if key not in DRAW_LIBRARIES}
    assert found(FACTS, changed(stack=bare)) == []


def test_a_distribution_that_is_called_like_a_device_hides_nothing():
    libraries = {**FACTS.libraries, "cpu": "1"}
    one, other = (changed(libraries=libraries, stack__cpu=model) for model in ("Xeon", "EPYC"))
    assert found(other, one) == [("device", "cpu is Xeon there, EPYC here", True)]


# 1. Bit-identical


@pytest.mark.parametrize("each", [DATA, CONFIG, CODE, LIBRARY, DEVICE, REPORT])
def test_equal_digests_are_bit_identical_whatever_else_differs(each):
    judged = judge(A, outcome("a", r_hat={"mu": 2.0}), [each])
    assert (judged.verdict, judged.cause) == ("bit-identical", "")
    suffix = ", without changing draws" if each.decides_draws else " (decides no draw)"
    assert judged.remarks == (f"{each.kind}: {each.text}{suffix}",)


def test_digests_that_are_not_recorded_are_not_equal():
    unknown = replace(A, digests={"all": ""})
    assert judge(unknown, unknown, []).verdict == "statistically equal"


def test_another_elpd_from_the_same_draws_is_remarked():
    assert judge(A, outcome("a", elpd=-394.5), []).remarks == (
        "from the same draws, elpd_loo is -394.79 there, -394.5 here",
    )
    unknown = outcome("a", elpd=np.nan)
    assert not any("same draws" in each for each in judge(unknown, unknown, []).remarks)


# 2. Data and settings


@pytest.mark.parametrize("cause", [DATA, CONFIG])
def test_other_data_or_settings_are_different_however_close(cause):
    judged = judge(A, B, [LIBRARY, CODE, cause])
    assert (judged.verdict, judged.cause, judged.z) == ("different", str(cause), 0.0)
    assert judged.remarks == (f"also {LIBRARY}", f"also {CODE}")


def test_data_come_before_settings_and_both_before_convergence():
    assert judge(A, outcome("b", r_hat={"mu": 2.0}), [CONFIG, DATA]).cause == str(DATA)


def test_a_setting_that_decides_no_draw_is_no_cause():
    judged = judge(A, B, [PLOTS])
    assert judged.verdict == "statistically equal"
    assert (
        judged.cause == "no recorded input that decides draws differs; the guarantee of bit-identity is violated here"
    )
    assert judged.remarks == (f"{PLOTS} (decides no draw)",)


# 3. Statistically equal


def test_threshold_is_four_until_many_quantities_ask_for_more():
    assert threshold(1) == 4.0
    assert threshold(1000) == pytest.approx(norm.ppf(1 - 5e-7)) == pytest.approx(4.8916, abs=1e-4)


@given(st.integers(1, 10**6))
def test_threshold_lets_one_in_a_thousand_comparisons_fail_at_most(num_quantities):
    assert 2 * num_quantities * norm.sf(threshold(num_quantities)) <= 0.001 * (1 + 1e-9)


def test_runs_within_their_errors_are_statistically_equal_and_the_cause_says_why_not_more():
    near = outcome("b", mean={"mu": 9.1}, elpd=-394.75)
    judged = judge(A, near, [LIBRARY, CODE])
    assert (judged.verdict, judged.cause) == ("statistically equal", str(CODE))
    # 0.1 / sqrt(0.03^2 + 0.03^2), the largest; elpd_loo: 0.04 / (0.03 sqrt 2)
    assert judged.quantity == "mean of mu" and judged.z == pytest.approx(0.1 / np.hypot(0.03, 0.03))
    assert list(judged.shifts["quantity"][:2]) == ["mean of mu", "elpd_loo"]
    assert judged.shifts["z"][1] == pytest.approx(0.04 / np.hypot(0.03, 0.03))
    assert judged.remarks == (f"also {LIBRARY}",)


def test_shifts_hold_every_quantity_that_has_a_mean():
    shifts = judge(A, B, []).shifts
    assert list(shifts) == ["quantity", "one", "other", "mcse", "z"]
    assert set(shifts["quantity"]) == {"mean of mu", "mean of lam.1", "sd of mu", "sd of lam.1", "elpd_loo"}


@pytest.mark.parametrize(
    ("other", "quantity"),
    [
        (FAR, "mean of mu"),
        (outcome("b", mean={"mu": 8.5}), "mean of mu"),
        (outcome("b", sd={"lam.1": 2.3}), "sd of lam.1"),
        (outcome("b", elpd=-394.0), "elpd_loo"),
    ],
)
def test_one_quantity_beyond_its_error_makes_runs_different(other, quantity):
    judged = judge(A, other, [CODE])
    assert (judged.verdict, judged.cause, judged.quantity) == ("different", str(CODE), quantity)


def test_both_errors_count():
    # 0.5 is 11.8 errors of the two runs, but 1.7 if one of them knows mu to 0.3 only
    vague = {"mcse_mean": {"mu": 0.3}}
    assert judge(A, outcome("b", mean={"mu": 9.5}, **vague), []).verdict == "statistically equal"
    assert judge(outcome("a", **vague), FAR, []).verdict == "statistically equal"


@pytest.mark.parametrize("mcse", [0.0, np.nan, np.inf])
def test_a_value_without_an_error_is_equal_only_to_itself(mcse):
    unknown = {"mcse_mean": {"mu": mcse}}
    assert judge(A, outcome("b", **unknown), []).shifts["z"].eq(0).all()
    one, other = outcome("a", **unknown), outcome("b", mean={"mu": 9.0001}, **unknown)
    judged = judge(one, other, [])
    assert (judged.verdict, judged.quantity, judged.z) == ("different", "mean of mu", math.inf)


@pytest.mark.parametrize("both", [False, True])
def test_an_elpd_that_is_no_number_is_equal_to_nothing(both):
    broken = outcome("b", elpd=np.nan)
    judged = judge(replace(broken, digests={}) if both else A, broken, [])
    assert (judged.verdict, judged.quantity, judged.z) == ("different", "elpd_loo", math.inf)
    assert "not comparable, because a value or its Monte Carlo error is missing: elpd_loo" in judged.remarks
    assert lines(judged)[0] == "different: elpd_loo cannot be compared with its Monte Carlo error"


def test_a_parameter_of_one_run_only_makes_runs_different_and_is_named():
    fewer = replace(B, summary=B.summary.drop(index=["lam.1", "alpha"]))
    for one, other, place in ((A, fewer, "there"), (fewer, A, "here")):
        judged = judge(one, other, [CODE])
        assert (judged.verdict, judged.cause) == ("different", str(CODE))
        assert judged.remarks[0] == f"parameters only {place}: alpha, lam.1"


def test_runs_without_a_parameter_in_common_can_be_judged():
    one = replace(A, summary=A.summary.loc[["mu"]])
    other = replace(B, summary=B.summary.loc[["lam.1"]])
    assert judge(one, other, []).verdict == "different"
    none = A.summary.iloc[:0]
    assert judge(replace(A, summary=none), replace(B, summary=none), []).verdict == "different"


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"r_hat": {"mu": 1.05}}, "R-hat of mu is 1.050 {}, above 1.01"),
        ({"r_hat": {"alpha": 1.05}}, "R-hat of alpha is 1.050 {}, above 1.01"),
        ({"r_hat": {"mu": np.nan, "alpha": 3.0}}, "R-hat of mu is nan {}, above 1.01 (and 1 more)"),
        ({"r_hat": {"mu": 1.02, "alpha": 1.03}}, "R-hat of alpha is 1.030 {}, above 1.01 (and 1 more)"),
        ({"ess_bulk": {"mu": 399.0}}, "bulk ESS of mu is 399 {}, below 400"),
        ({"ess_tail": {"lam.1": 399.0, "mu": 10.0}}, "tail ESS of mu is 10 {}, below 400 (and 1 more)"),
    ],
)
def test_runs_that_have_not_converged_are_different_for_that(columns, reason):
    bad = outcome("b", **columns)
    for one, other, place in ((A, bad, "here"), (bad, A, "there")):
        judged = judge(one, other, [CODE])
        assert (judged.verdict, judged.cause) == ("different", f"not converged: {reason.format(place)}")
        assert f"also {CODE}" in judged.remarks
    assert judge(outcome("a", mean={"mu": 99.0}), bad, [CODE]).cause.startswith("not converged")


def test_runs_at_the_very_limits_of_the_gate_have_converged():
    limit = outcome("b", r_hat={"mu": R_HAT_MAX}, ess_bulk={"mu": 400.0}, ess_tail={"mu": 400.0})
    assert judge(A, limit, []).verdict == "statistically equal"
    assert judge(A, replace(limit, num_chains=5), []).verdict == "different"


def test_two_runs_that_have_not_converged_are_both_named():
    one, other = outcome("a", r_hat={"mu": 1.05}), outcome("b", ess_tail={"mu": 7.0})
    assert judge(one, other, []).cause == (
        "not converged: R-hat of mu is 1.050 there, above 1.01; tail ESS of mu is 7 here, below 400"
    )


def autoregressive(*, seed: int, rho: float) -> xr.Dataset:
    """Three parameters of stationary AR(1) chains with mean 9 and sd 2, (chain, draw, group)."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(4, 1000, 3))
    draws = np.empty_like(noise)
    draws[:, 0] = noise[:, 0]
    for t in range(1, 1000):
        draws[:, t] = rho * draws[:, t - 1] + math.sqrt(1 - rho**2) * noise[:, t]
    return xr.Dataset({"lam": (("chain", "draw", "group"), 9 + 2 * draws)}, coords={"group": ["a", "b", "c"]})


def sampled(seed: int, *, rho: float) -> RunResults:
    summary = summarise(autoregressive(seed=seed, rho=rho))
    elpd = float(np.random.default_rng(10_000 + seed).normal(-394.8, 0.04))
    return RunResults({"all": str(seed)}, summary, elpd, 0.04, num_chains=4)


@pytest.fixture(scope="module", params=[0.0, 0.5])
def samples(request) -> list[RunResults]:
    return [sampled(seed, rho=request.param) for seed in range(200)]


@pytest.mark.fit  # four hundred comparisons
def test_independent_draws_of_one_distribution_are_statistically_equal(samples):
    judged = [judge(one, other, [CODE]) for one, other in pairwise(samples)]
    # at most one in a thousand by the threshold, so 0.2 of 199 are expected to fail
    assert sum(each.verdict != "statistically equal" for each in judged) <= 1
    z = np.concatenate([each.shifts["z"] for each in judged])
    assert z.std() == pytest.approx(1, abs=0.1) and abs(z.mean()) < 0.1  # z are in units of the error they have


@pytest.mark.fit  # four hundred comparisons
def test_a_shift_of_ten_errors_is_different(samples):
    for one, other in pairwise(samples[:40]):
        moved = other.summary.copy()
        moved.loc["lam.b", "mean"] += 10 * np.hypot(*(run.summary.loc["lam.b", "mcse_mean"] for run in (one, other)))
        judged = judge(one, replace(other, summary=moved), [CODE])
        assert (judged.verdict, judged.quantity) == ("different", "mean of lam.b")


# 4. The cause


@pytest.mark.parametrize("other", [B, FAR])
@pytest.mark.parametrize(
    ("differing", "cause"),
    [
        ([DEVICE, LIBRARY, CODE], str(CODE)),
        ([REPORT, DEVICE, LIBRARY], str(LIBRARY)),
        ([REPORT, SCIPY, DEVICE], str(DEVICE)),
        ([REPORT], f"{REPORT} (possible cause only: it should not change draws)"),
        ([SCIPY, REPORT], f"{REPORT} (possible cause only: it should not change draws)"),
        ([CORES, SCIPY], f"{SCIPY} (possible cause only: it should not change draws)"),
        ([CORES], "no recorded input that decides draws differs; the guarantee of bit-identity is violated here"),
        ([], "no recorded input differs; the guarantee of bit-identity is violated here"),
    ],
)
def test_cause_is_the_first_of_code_library_and_device_that_decides_draws(other, differing, cause):
    judged = judge(A, other, differing)
    assert judged.verdict == ("statistically equal" if other is B else "different")
    assert judged.cause == cause
    named = " ".join([judged.cause, *judged.remarks])
    assert all(each.text in named for each in differing)


def test_draws_of_some_parameters_may_be_the_same():
    same = replace(FAR, digests={"mu": "mu a", "all": "b"})
    assert judge(A, same, []).remarks == ("bit-identical nevertheless: the draws of mu",)


def test_remarks_stop_at_five_of_a_sort():
    many = [Difference("config", f"prior.mu.k{n} is 0 there, 1 here", True) for n in range(8)]
    remarks = judge(A, B, many).remarks
    assert len(remarks) == 6 and remarks[-1] == "and 2 more that decide draws"


@given(
    one=st.sampled_from([A, B, FAR, outcome("c", r_hat={"mu": 1.1}), outcome("d", elpd=np.nan)]),
    other=st.sampled_from([A, B, FAR, outcome("c", r_hat={"mu": 1.1}), outcome("d", elpd=np.nan)]),
    differing=st.permutations([DATA, CONFIG, CODE, LIBRARY, DEVICE, PLOTS, REPORT, SCIPY, CORES]).flatmap(
        lambda each: st.integers(0, len(each)).map(lambda n: each[:n])
    ),
)
def test_judgement_does_not_depend_on_which_run_comes_first(one, other, differing):
    there, back = judge(one, other, differing), judge(other, one, differing)
    assert there.verdict == back.verdict and abs(there.z) == abs(back.z) and there.quantity == back.quantity
    assert (there.cause == "") == (there.verdict == "bit-identical")
    if there.verdict == "statistically equal":
        assert not {DATA, CONFIG} & set(differing)


# The words


def test_lines_of_bit_identical_runs_have_no_table():
    assert lines(judge(A, A, [CODE])) == [
        "bit-identical: all draws have the same sha256",
        "  code: model/count_model.py has changed, without changing draws",
    ]


def test_lines_name_the_largest_shift_the_cause_and_the_table():
    assert lines(judge(A, FAR, [CODE, LIBRARY])) == [
        "different: the largest of 5 shifts is +11.79 MCSE (mean of mu), beyond 4.00",
        "  cause: code: model/count_model.py has changed",
        "  also library: numpyro 0.22.0 there, 0.23.0 here",
        "                    there      here   MCSE  shift / MCSE",
        "  mean of mu        9.000     9.500  0.042        +11.79",
        "  mean of lam.1    10.000    10.000  0.057         +0.00",
        "  sd of mu          1.000     1.000  0.028         +0.00",
        "  sd of lam.1       2.000     2.000  0.042         +0.00",
        "  elpd_loo       -394.790  -394.790  0.042         +0.00",
    ]


def test_lines_call_a_shift_downwards_large_too():
    assert lines(judge(A, outcome("b", mean={"mu": 8.5}), [CODE]))[0] == (
        "different: the largest of 5 shifts is -11.79 MCSE (mean of mu), beyond 4.00"
    )


def test_lines_say_why_equal_runs_are_not_bit_identical():
    first, second, *_ = lines(judge(A, outcome("b", mean={"mu": 8.95}), [LIBRARY]))
    assert first == "statistically equal: the largest of 5 shifts is -1.18 MCSE (mean of mu), within 4.00"
    assert second == "  not bit-identical; cause: library: numpyro 0.22.0 there, 0.23.0 here"


@pytest.mark.fit  # four hundred comparisons
def test_lines_show_eight_shifts_and_the_names_of_two_runs(samples):
    wide = [
        replace(each, summary=pd.concat([each.summary, each.summary.rename(index="{}2".format)]))
        for each in samples[:2]
    ]
    printed = lines(judge(*wide, [CODE]), names=("in 1a2b3c", "in 4d5e6f"))
    assert printed[2].split()[:3] == ["1a2b3c", "4d5e6f", "MCSE"]
    assert len(printed) == 3 + 8 + 1 and printed[-1] == "  and 5 smaller shifts"


def test_every_line_is_one_line():
    other = changed(stack__xla_flags="--a\n--b", settings__prior__mu__rate=0.3)
    for text in [each.text for each in differences(FACTS, other)] + lines(judge(A, FAR, differences(FACTS, other))):
        assert "\n" not in text
