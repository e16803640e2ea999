"""All that a fit says: what is asked for is there, what is off is not, and it does not depend on the rest."""

from dataclasses import replace

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from scipy import stats

from poolwise.checks.base import FitView
from poolwise.checks.exact import solve as exact
from poolwise.checks.findings import examine
from poolwise.config import check
from poolwise.counts.cells import counts_from_rows
from poolwise.inference.engines.base import Fit
from poolwise.inference.engines.nuts import sample
from poolwise.paths import CONF, register_resolvers
from poolwise.provenance import fingerprints
from poolwise.runs import job as job_module
from poolwise.runs.job import Job, JudgedFit

pytestmark = pytest.mark.fit

SMALL = ("sampler.num_warmup=300", "sampler.num_samples=500", "device.num_devices=1", "predict.num_draws=100")
OFF = tuple(
    f"checks.{key}=false"
    for key in ("groups", "rate_ratios", "exact", "sensitivity", "exposure_law", "model_check", "zeros")
)
COUNTS = {"a": [7, 9, 0, 11, 6, 9], "b": [12, 10, 15, 9, 12, 8], "c": [4, 7, 5, 6, 3, 5]}


def settings_of(job, on_group=lambda label: None):
    """The settings of a job that no run is logged for."""
    return replace(job_module.settings_of(job, logged=None), on_group=on_group)


@pytest.fixture(scope="module")
def counts():
    return counts_from_rows(np.repeat(list(COUNTS), 6), [count for group in COUNTS.values() for count in group])


@pytest.fixture(scope="module")
def job_of(counts):
    """`job_of("pooling=pooled")`: the job that a command line makes of these counts."""

    def make(*overrides: str) -> Job:
        register_resolvers()
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = check(compose("config", [*SMALL, *overrides]))
        return job_module.prepare(config, overrides, counts=counts)

    return make


@pytest.fixture(scope="module")
def draws_of(job_of):
    """The draws of a job; those of a variant are made once."""
    made: dict[str, Fit] = {}

    def draw(job: Job) -> Fit:
        pooling, config = job.model.pooling.name, job.config
        if pooling not in made:
            made[pooling] = sample(
                job.model, job.counts, job.prior_values, seed=config.seed, sampler=config.sampler, device=config.device
            )
        return made[pooling]

    return draw


@pytest.fixture(scope="module")
def examined(job_of, draws_of):
    """`examined("checks.exact=false")`: what the fit of such a job says."""

    def make(*overrides: str, **given) -> FitView:
        job = job_of(*overrides)
        return examine(job.model, job.counts, job.prior_values, draws_of(job), settings_of(job, **given))

    return make


@pytest.fixture(scope="module")
def plain(examined):
    """The findings of the default checks."""
    return examined()


@pytest.fixture(scope="module")
def bare(examined):
    """The findings of a fit with every check off that can be."""
    return examined(*OFF)


def test_what_is_off_is_not_there(bare):
    assert bare.results == {}
    assert set(bare.switched_off) == {
        *("groups", "rate_ratios", "exact", "sensitivity", "exposure_law", "model_check", "zeros", "leave_group_out")
    }


def test_the_default_weighs_the_priors_and_holds_the_fit_against_the_exact_answer(plain):
    assert plain.results["exact_agreement"].value.agrees
    assert set(plain.tables["sensitivity"].index) == {"mu", "sigma", "lam.a", "lam.b", "lam.c"}
    assert "leave_group_out" not in plain.results  # a refit for each group: only where it is asked for


def test_the_answer_is_reported_before_predictive_draws_and_has_the_final_verdict(job_of, draws_of):
    job, told = job_of(), []

    def note(view):
        told.append((view, set(view.tree.children), set(view.results)))

    settings = replace(settings_of(job), on_answer=note)
    found = examine(job.model, job.counts, job.prior_values, draws_of(job), settings)
    ((view, groups, results),) = told
    assert "posterior_predictive" not in groups
    assert results == {"exact_agreement"}
    assert view.verdict == found.verdict
    assert (view.summary is found.summary, view.loo is found.loo) == (True, True)


def test_one_check_moves_no_number_of_another(plain, bare):
    assert plain.summary.equals(bare.summary)
    assert (plain.loo.elpd, plain.loo.mcse) == (bare.loo.elpd, bare.loo.mcse)
    assert replace(plain.verdict, conditions=bare.verdict.conditions) == bare.verdict
    assert plain.verdict.conditions[: len(bare.verdict.conditions)] == bare.verdict.conditions
    assert np.array_equal(plain.new_group.rate, bare.new_group.rate)
    for name, group in plain.tree.children.items():
        assert group.to_dataset().equals(bare.tree[name].to_dataset())


def test_more_cells_than_seconds_allow_are_said(examined, counts, monkeypatch):
    monkeypatch.setattr(exact, "most_cells", lambda model: counts.num_cells - 1)
    found = examined("checks.sensitivity=false")
    (line,) = found.results["exact_agreement"].lines
    assert line.startswith(f"no exact answer: {counts.num_cells} cells (distinct group, exposure and count); for a ")
    assert found.results["exact_agreement"].value is None


def test_an_answer_that_does_not_settle_is_said(examined, monkeypatch):
    def solve(*_):
        raise exact.NotExact("cookies: the quadrature does not converge.")

    monkeypatch.setattr(exact, "solve", solve)
    found = examined("checks.sensitivity=false")
    assert found.results["exact_agreement"].lines == ("no exact answer: cookies: the quadrature does not converge",)
    assert found.verdict.conditions == examined(*OFF).verdict.conditions


def test_every_group_is_left_out_in_turn_where_it_is_asked_for(examined, counts):
    found = examined(*OFF, "pooling=pooled", "checks.leave_group_out=true")
    # Gamma(2, 0.2) prior, one rate: log p(y) - log p(y_-g), in closed form
    out = found.results["leave_group_out"].value
    assert out.labels == counts.labels == ("a", "b", "c")
    assert out.elpd == pytest.approx([_elpd_of(label) for label in COUNTS], abs=1e-6)


def _elpd_of(label: str) -> float:
    """Log p(y_g | y_-g), a row after the other: each negative binomial given those before."""
    rest = [count for other, counts in COUNTS.items() if other != label for count in counts]
    shape, rate, total = 2 + sum(rest), 0.2 + len(rest), 0.0
    for count in COUNTS[label]:
        total += stats.nbinom.logpmf(count, shape, rate / (rate + 1))
        shape, rate = shape + count, rate + 1
    return total


def test_refits_are_announced_by_the_label_of_their_group(examined):
    told = []
    found = examined(*OFF, "checks.leave_group_out=true", on_group=told.append)
    assert list(dict.fromkeys(told)) == ["a", "b", "c"]
    assert np.all(np.isfinite(found.results["leave_group_out"].value.elpd))


def test_what_lies_below_a_row_is_its_leave_one_out_probability(examined, counts):
    # pooled: without a row of count y the rate is Gamma(2 + total - y, 0.2 + 17), so Y is negative binomial
    found = examined(*OFF, "pooling=pooled").cell_below
    shape, rate = 2 + sum(sum(group) for group in COUNTS.values()) - counts.cell_count, 0.2 + 17
    expected = stats.nbinom.cdf(counts.cell_count - 1, shape, rate / (rate + 1))
    assert np.all((found >= 0) & (found <= 1))
    assert found == pytest.approx(expected, abs=0.01)  # 2000 draws


def test_what_lies_below_a_row_is_integrated_where_its_elpd_is(examined, counts):
    psis = examined(*OFF, "pooling=pooled")
    found = replace(psis, loo=replace(psis.loo, psis=psis.loo)).cell_below
    shape, rate = 2 + sum(sum(group) for group in COUNTS.values()) - counts.cell_count, 0.2 + 17
    expected = stats.nbinom.cdf(counts.cell_count - 1, shape, rate / (rate + 1))
    assert found == pytest.approx(expected, abs=1e-4)  # no draws: 100 times nearer than PSIS is
    assert psis.cell_below != pytest.approx(expected, abs=1e-4)


def test_nothing_lies_below_no_event_and_more_below_more(plain, counts):
    below = plain.cell_below
    for g in range(3):
        of_group = below[counts.cell_group == g]  # cells are sorted by count
        assert np.all(np.diff(of_group) > 0)
    assert below[counts.cell_count == 0] == [0.0]
    assert np.all((below >= 0) & (below < 1))


def test_the_tree_holds_what_the_priors_and_the_posterior_predict(bare, counts):
    assert set(bare.tree.children) == {
        *("posterior", "sample_stats", "observed_data", "constant_data"),
        *("posterior_predictive", "prior", "prior_predictive_cells"),
    }
    assert bare.tree["prior"]["lam"].shape == (1, 100, 3)
    assert bare.tree["prior_predictive_cells"]["y"].shape == (1, 100, counts.num_cells)
    assert bare.tree["posterior_predictive"]["y"].shape == (4, 25, 18)


def test_the_findings_are_told_by_the_digests_of_their_draws(bare, job_of, draws_of):
    draws = draws_of(job_of())
    digests = fingerprints.posterior_digests(draws.posterior)
    outcome = JudgedFit(bare, digests).outcome
    assert outcome.digests == digests
    assert (outcome.elpd_loo, outcome.elpd_loo_mcse, outcome.num_chains) == (bare.loo.elpd, bare.loo.mcse, 4)


def test_the_time_of_the_exact_answer_and_of_refits_is_kept(job_of, draws_of):
    job = job_of("checks.sensitivity=false")
    examine(job.model, job.counts, job.prior_values, draws_of(job), settings_of(job))
    assert {"exact"} == {stage for stage in job.seconds if stage in ("exact", "leave_group_out", "sensitivity")}


def test_a_fit_that_differs_from_the_exact_answer_is_suspect(examined, monkeypatch):
    def shifted(*arguments):
        answer = solve(*arguments)
        return replace(answer, mean=answer.mean | {"mu": answer.mean["mu"] + 3.0})

    solve = exact.solve
    monkeypatch.setattr(exact, "solve", shifted)
    found = examined("checks.sensitivity=false")
    assert found.verdict.status == "suspect"
    assert "the fit differs from the exact answer: mean of mu is off by " in found.verdict.reasons[-1]
