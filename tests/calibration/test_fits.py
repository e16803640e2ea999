"""The batched fits of simulated tables: against closed forms, and the same bits however they are cut."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from poolwise.calibration import ranks
from poolwise.calibration.fits import Plan, Recovered, names_of, recover
from poolwise.calibration.simulation import Simulated, simulate
from poolwise.counts.cells import Counts, counts_from_rows
from poolwise.inference import checkpoint
from poolwise.inference.settings import Device
from poolwise.model.poolings import POOLINGS
from poolwise.model.priors import prior_values
from support import DEVICE, PRIORS, model_of

pytestmark = pytest.mark.fit

SMALL = counts_from_rows(["a", "b", "c"], [1, 2, 3])  # a row a group: the prior tells
PLAN = Plan(num_warmup=200, target_accept=0.9, max_tree_depth=8, draws=99, thin=5)
BATCH, TOTAL = 40, 160
ARRAYS = ("truth", "rank", "ess", "autocorrelation", "divergences", "is_fitted")
UNPOOLED = model_of("unpooled", "poisson")  # what most tests fit: its program is compiled once
VALUES = prior_values(PRIORS, sites=("lam",))


@pytest.fixture(scope="module")
def tables() -> Simulated:
    return simulate(UNPOOLED, SMALL, VALUES, seed=0, simulations=TOTAL)


@pytest.fixture(scope="module")
def found(tables, tmp_path_factory) -> Recovered:
    return recovered(tables, tmp_path_factory.mktemp("ranks"))


def recovered(tables: Simulated, folder: Path, *, values=VALUES, device: Device = DEVICE, **given) -> Recovered:
    given = {"seed": 0, "plan": PLAN, "batch": BATCH} | given
    return recover(UNPOOLED, SMALL, tables, values, device=device, folder=folder, **given)


def of_hierarchy(
    folder: Path, table: Counts, *, parameterisation: str, simulations: int, plan: Plan, **given
) -> Recovered:
    model, sites = model_of("hierarchical", "poisson", parameterisation=parameterisation), ("mu", "sigma")
    values = prior_values(PRIORS, sites=sites)
    tables = simulate(model, table, values, seed=0, simulations=simulations)
    given = {"seed": 0, "device": DEVICE, "batch": 50} | given
    return recover(model, table, tables, values, plan=plan, folder=folder, **given)


def same(one: Recovered, other: Recovered) -> bool:
    return all(getattr(one, name).tobytes() == getattr(other, name).tobytes() for name in ARRAYS)


def test_names_are_parameters_rates_and_the_log_likelihood():
    assert names_of(model_of("pooled", "negative_binomial"), SMALL) == ("delta", "lam", "log likelihood")
    hierarchical = ("mu", "sigma", "lam.a", "lam.b", "lam.c", "log likelihood")
    assert names_of(model_of("hierarchical", "poisson"), SMALL) == hierarchical


def test_ranks_are_those_of_the_conjugate_posterior(tables, found):
    # unpooled Poisson, one row a group: lam | y is Gamma(2 + y, 0.2 + 1)
    place = stats.gamma(2 + tables.statistics["group_total"], scale=1 / 1.2).cdf(tables.truth["lam"])
    error = np.sqrt(np.maximum(place * (1 - place), 0.01) / np.minimum(found.ess[:, :3], 99))
    z = (found.rank[:, :3] / 99 - place) / error
    assert np.abs(z).max() < 5
    assert np.square(z).mean() < 1.5


def test_ranked_log_likelihood_is_that_of_the_truth(tables, found):
    count = tables.statistics["group_total"]
    exact = stats.poisson.logpmf(count, tables.truth["lam"]).sum(axis=1)
    np.testing.assert_allclose(found.truth[:, -1], exact, rtol=1e-9)


def test_draws_after_thinning_are_nearly_independent(found):
    assert np.median(found.ess) / 99 > 0.85
    assert abs(found.autocorrelation.mean()) < 0.05


def test_a_right_model_is_calibrated(found):
    assert ranks.judge(found.rank, found.names, num_draws=99)["is_calibrated"].all()


def test_a_prior_of_another_scale_is_found_miscalibrated(tables, tmp_path):
    wrong = prior_values({"lam": PRIORS["lam"] | {"rate": 0.6}}, sites=("lam",))  # a third of the true scale
    found = recovered(tables, tmp_path, values=wrong)
    table = ranks.judge(found.rank, found.names, num_draws=99)
    rates = ["lam.a", "lam.b", "lam.c"]
    assert not table.loc[rates, "is_calibrated"].any()
    assert (table.loc[rates, "mean"] > 0.55).all()  # draws too small: truths rank high


def test_bits_depend_on_neither_devices_nor_batches(tables, found, tmp_path):
    assert same(found, recovered(tables, tmp_path, device=replace(DEVICE, num_devices=1), batch=71))


def test_a_recovery_that_was_killed_goes_on_to_the_same_bits(tables, found, tmp_path):
    def kill(far: Recovered) -> None:
        if far.done >= 2 * BATCH:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recovered(tables, tmp_path, on_batch=kill)
    left = checkpoint.load(tmp_path)
    assert left and left.steps == 2 * BATCH
    began = []
    again = recovered(tables, tmp_path, begin=left, on_batch=lambda far: began.append(far.done))
    assert began == [3 * BATCH, 4 * BATCH]
    assert same(again, found)


def test_a_table_or_start_that_is_not_finite_is_marked_and_kept(tables, tmp_path):
    constant = tables.statistics["constant"].copy()
    constant[1] = np.nan  # no density anywhere
    is_possible = tables.is_possible.copy()
    is_possible[2] = False
    marred = replace(tables, statistics=tables.statistics | {"constant": constant}, is_possible=is_possible)
    found = recovered(marred, tmp_path)
    assert np.flatnonzero(~found.is_fitted).tolist() == [1, 2]
    assert found.done == TOTAL


@pytest.mark.slow
@pytest.mark.parametrize("parameterisation", POOLINGS["hierarchical"].parameterisations)
def test_bits_of_every_form_depend_on_neither_devices_nor_batches(tmp_path, parameterisation):
    given = {"parameterisation": parameterisation, "simulations": 7, "plan": replace(PLAN, draws=9)}
    one, two = (replace(DEVICE, num_devices=number) for number in (1, 2))
    whole = of_hierarchy(tmp_path / "whole", SMALL, device=one, **given)
    assert same(whole, of_hierarchy(tmp_path / "two", SMALL, device=two, **given))
    assert same(whole, of_hierarchy(tmp_path / "batches", SMALL, device=two, batch=3, **given))


@pytest.mark.slow
@pytest.mark.parametrize(("parameterisation", "is_calibrated"), [("centred", False), ("standardised", True)])
def test_form_of_the_rates_decides_the_calibration_of_the_hierarchy(tmp_path, cookies, parameterisation, is_calibrated):
    plan = Plan(num_warmup=1000, target_accept=0.9, max_tree_depth=10, draws=99, thin=10)
    found = of_hierarchy(tmp_path, cookies, parameterisation=parameterisation, simulations=400, plan=plan)
    table = ranks.judge(found.rank, found.names, num_draws=99)
    assert table["is_calibrated"].all() == is_calibrated
    assert is_calibrated or table.loc["sigma", "how"].startswith("small values are missed")
