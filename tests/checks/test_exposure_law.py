"""The law of overdispersion by row or by unit: against quadrature, on simulated tables, and in words."""

import functools
from dataclasses import replace

import numpy as np
import pytest
from scipy import optimize, stats
from scipy.special import logsumexp

from poolwise.checks import exposure_law
from poolwise.checks.base import Settings
from poolwise.checks.findings import examine
from poolwise.counts.cells import counts_from_rows
from poolwise.inference.engines.exact import sample  # compiles less than NUTS
from poolwise.model.count_model import count_model, sites_of
from poolwise.model.priors import prior_values
from support import ONE_DEVICE, PRIORS, SAMPLER

SHORT = replace(SAMPLER, num_warmup=300, num_samples=500, checkpoint_every=500)


def table(*, by_unit, seed=0, groups=6, rows=25, exposures=(1, 2, 5, 10, 20), phi=3.0):
    """Simulated counts, whose concentration is that of a row or of a unit of exposure."""
    rng = np.random.default_rng(seed)
    lam, group = rng.gamma(9.0, 0.5, groups), np.repeat(np.arange(groups), rows)
    exposure = rng.choice(exposures, groups * rows).astype(float)
    concentration = phi * (exposure if by_unit else np.ones_like(exposure))
    mean = exposure * lam[group]
    counts = rng.negative_binomial(concentration, concentration / (concentration + mean))
    return counts_from_rows([f"g{g}" for g in group], counts, exposure)


def integrated(counts, *, by_unit, is_shared):
    """Largest log likelihood over delta, each rate integrated over its logarithm on a grid."""
    group, exposure, count = counts.rows()
    group = 0 * group if is_shared else group
    log_lam, step = np.linspace(-4, 6, 4001, retstep=True)

    def cost(log_phi):
        total = 0.0
        for g in np.unique(group):
            phi = np.exp(log_phi) * (exposure[group == g] if by_unit else np.ones((group == g).sum()))
            mean = exposure[group == g, None] * np.exp(log_lam)
            law = stats.nbinom(phi[:, None], phi[:, None] / (phi[:, None] + mean))
            total += logsumexp(law.logpmf(count[group == g, None]).sum(axis=0)) + np.log(step)
        return -total

    return -optimize.minimize_scalar(cost, bounds=(-4, 8), method="bounded").fun


@pytest.mark.parametrize("is_shared", [False, True])
@pytest.mark.parametrize("by_unit", [False, True])
def test_ratio_is_near_that_of_the_integrated_likelihoods(by_unit, is_shared):
    counts = table(by_unit=by_unit, seed=4, groups=4, rows=8)
    exact = integrated(counts, by_unit=True, is_shared=is_shared) - integrated(
        counts, by_unit=False, is_shared=is_shared
    )
    # Laplace's approximation errs by up to a tenth of a group of 8 rows in either law
    assert exposure_law.log_ratio(counts, is_shared=is_shared) == pytest.approx(exact, abs=0.2)


def test_decisions_on_simulated_tables_are_right_or_open():
    ratios = {
        law: np.array([exposure_law.log_ratio(table(by_unit=law, seed=seed), is_shared=False) for seed in range(60)])
        for law in (False, True)
    }
    assert np.mean(ratios[False] <= -exposure_law.DECIDED) > 0.9
    assert np.mean(ratios[True] >= exposure_law.DECIDED) > 0.8
    assert not np.any(ratios[False] > exposure_law.DECIDED)
    assert not np.any(ratios[True] < -exposure_law.DECIDED)


def test_few_rows_a_group_favour_neither_law():
    for law in (False, True):
        tables = (table(by_unit=law, seed=seed, groups=30, rows=2, exposures=(1, 3, 10)) for seed in range(60))
        ratios = np.array([exposure_law.log_ratio(each, is_shared=False) for each in tables])
        wrong = ratios < -exposure_law.DECIDED if law else ratios > exposure_law.DECIDED
        assert wrong.mean() <= 0.05


@functools.cache
def result_of(counts, overdispersion):
    families = {site: PRIORS[site]["name"] for site in sites_of("hierarchical", "negative_binomial")}
    model = count_model("hierarchical", "negative_binomial", families, overdispersion=overdispersion)
    values = prior_values(PRIORS, sites=tuple(families))
    draws = sample(model, counts, values, seed=0, sampler=SHORT, device=ONE_DEVICE)
    settings = Settings(seed=0, sampler=SHORT, device=ONE_DEVICE, checks=frozenset({"exposure_law"}), exposure=10.0)
    view = examine(model, counts, values, draws, settings)
    return view, view.results["exposure_law"]


REFUTED = table(by_unit=True, seed=1, rows=60)


def test_refuted_law_fails_the_model_check_and_names_the_other():
    view, found = result_of(REFUTED, "row")
    assert found.tags == {"overdispersion_law": "unit"}
    assert "likelihood.overdispersion=unit" in view.model_check.remedies
    assert (
        found.lines[0] == "overdispersion of a unit: these data are over 10,000 times as likely as with that of a row"
    )


def test_spread_at_another_exposure_is_that_of_the_fitted_law():
    for law, size in (("row", 1.0), ("unit", 10.0)):
        view, found = result_of(REFUTED, law)
        relative = float(view.posterior["delta"].median()) / np.sqrt(size)
        assert f"at exposure 10 exposure varies by {relative:.0%} of its mean" in found.lines[1].replace(
            f"{relative:.1%}", f"{relative:.0%}"
        )


def test_equal_exposures_show_no_law():
    _, found = result_of(table(by_unit=True, exposures=(4,)), "row")
    assert found.tags == {"overdispersion_law": "undecided"}
    assert found.metrics == {"overdispersion/log_ratio_unit_row": 0.0}
    assert all(each.passed for each in found.model_conditions)


def test_a_table_without_exposures_is_left_alone():
    _, found = result_of(table(by_unit=True, exposures=(1,)), "row")
    assert not (found.lines or found.metrics or found.tags or found.model_conditions)
