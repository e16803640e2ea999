"""Rows and groups left out, against closed forms, SciPy's integrals and the exact reference."""

from dataclasses import replace

import numpy as np
import pytest
from arviz_stats.base import array_stats
from numpyro import handlers
from scipy import integrate, stats

import exact_reference
from poolwise.checks import integrated_loo, leave_group_out, loo
from poolwise.counts.cells import counts_from_rows
from poolwise.counts.statistics import sufficient_statistics
from poolwise.inference import devices, nuts, predictive
from poolwise.inference.datatree import to_tree
from poolwise.model.count_model import FORMS, LIKELIHOODS, sites_of
from poolwise.model.priors import law, prior_values
from support import DEVICE, PRIORS, SAMPLER, VARIANTS, fit_cookies, model_of

pytestmark = pytest.mark.fit

# log p(y) - log p(y_-g), both from exact_reference.exact of the cookies; made again by the slow test below
LEFT_OUT = {
    ("pooled", "poisson"): [-73.981951, -93.289976, -81.067141, -83.542744, -96.894],
    ("pooled", "negative_binomial"): [-76.818894, -86.905, -80.792171, -81.705601, -92.439934],
    ("unpooled", "poisson"): [-76.344098, -72.685358, -83.135609, -85.839442, -83.943872],
    ("unpooled", "negative_binomial"): [-77.105551, -72.686832, -82.618496, -84.81836, -84.040102],
    ("hierarchical", "poisson"): [-75.327709, -74.483222, -82.150481, -84.809925, -84.224333],
    ("hierarchical", "negative_binomial"): [-76.096951, -74.564293, -81.628054, -83.777033, -84.331617],
}
FAMILIES = {
    "Exponential": {"rate": 0.2},
    "Gamma": {"concentration": 2.0, "rate": 0.2},
    "HalfCauchy": {"scale": 5.0},
    "HalfNormal": {"scale": 9.0},
    "InverseGamma": {"concentration": 3.0, "rate": 12.0},
    "LogNormal": {"loc": 2.0, "scale": 0.7},
    "Uniform": {"low": 2.0, "high": 9.0},
    "Weibull": {"scale": 8.0, "concentration": 1.5},
}
SHORT = replace(SAMPLER, num_warmup=500, num_samples=1000)
FEW = leave_group_out._Rows((0.5, 1.0, 1.0), (4, 0, 9), (2, 1, 1))  # ten and four rows: exposure, count, multiplicity


def values_of(pooling, likelihood, priors=PRIORS):
    return prior_values(priors, sites=sites_of(pooling, likelihood))


def groups_of(counts):
    group, _, count = counts.rows()
    return [count[group == g] for g in range(counts.num_groups)]


# Integrals over the rate.


def integral(rows, prior, phi=None):
    """Log int p(rows | lam) p(lam) dlam by SciPy."""

    def density(lam):
        rate = lam * np.array(rows.exposure)
        pmf = stats.poisson(rate) if phi is None else stats.nbinom(phi, phi / (phi + rate))
        return prior.pdf(lam) * np.prod(pmf.pmf(rows.count) ** rows.multiplicity)

    low, high = prior.support()
    return np.log(integrate.quad(density, low, min(high, 200.0), points=[2.0, 5.0, 9.0, 20.0], epsabs=0, limit=400)[0])


@pytest.mark.parametrize("phi", [None, 4.0], ids=["poisson", "negative binomial"])
@pytest.mark.parametrize("family", FAMILIES)
def test_marginal_of_any_prior_is_scipys(family, phi):
    priors = PRIORS | {"lam": {"name": family, **FAMILIES[family]}}
    likelihood = "poisson" if phi is None else "negative_binomial"
    prior = leave_group_out._mixing(model_of("unpooled", likelihood, priors), values_of("unpooled", likelihood, priors))
    drawn = {} if phi is None else {"phi": np.array([[phi, 1e30]])}
    found = np.ravel(leave_group_out._log_marginal(FEW, prior, drawn))
    prior_law = law(family, FAMILIES[family])
    assert found[0] == pytest.approx(integral(FEW, prior_law, phi), abs=1e-6)
    if phi is not None:  # an infinite concentration is the Poisson
        assert found[1] == pytest.approx(integral(FEW, prior_law), abs=1e-6)


def test_marginal_of_a_hierarchy_is_scipys():
    drawn = {name: np.array([[value]]) for name, value in {"mu": 6.0, "alpha": 2.5, "phi": 4.0}.items()}
    found = leave_group_out._log_marginal(FEW, leave_group_out._Prior("Gamma", {}), drawn)
    assert found[0, 0] == pytest.approx(integral(FEW, stats.gamma(2.5, scale=6.0 / 2.5), 4.0), abs=1e-6)


@pytest.mark.parametrize("shape", [0.05, 2.0, 1e4])
@pytest.mark.parametrize("total", [0, 3, 10**6])
def test_quadrature_keeps_to_the_closed_form_far_out(shape, total):
    rows = leave_group_out._Rows((1.0,), (total,), (1,))
    values = {"concentration": np.asarray(shape), "rate": np.asarray(0.2)}
    found = leave_group_out._log_mixture(rows.statistics(), "Gamma", values, None)
    exact = stats.nbinom.logpmf(total, shape, 0.2 / 1.2)
    assert float(found) == pytest.approx(exact, abs=1e-6, rel=1e-9)


def test_statistics_that_are_filled_up_say_the_same():
    rows = leave_group_out._Rows((0.5, 1.0, 2.0), (4, 0, 9), (2, 1, 1))
    filled = rows.statistics()
    assert {name: value.shape for name, value in filled.items() if value.shape} == {
        **dict.fromkeys(("group_total", "group_exposure"), (1,)),
        **dict.fromkeys(("stratum_group", "stratum_exposure", "stratum_rows", "stratum_total"), (4,)),
        **dict.fromkeys(("value", "value_rows"), (4,)),
    }
    assert (filled["stratum_rows"][3], filled["value_rows"][3], filled["stratum_exposure"][3]) == (0, 0, 1)


# One row left out.


def loo_of(draws, counts):
    tree = to_tree(draws.posterior, draws.sample_stats, counts)
    posterior, cells = tree["posterior"].to_dataset(), tree["constant_data"].to_dataset()
    blocks = predictive.pointwise_log_likelihood(posterior, cells)
    return loo.loo(blocks, counts.cell_multiplicity, r_eff=1.0), posterior, cells


def conjugate(counts, pooling):
    """Independent draws of the posterior under Gamma(2, 0.2) and Poisson noise, in the place of a fit."""
    group = np.zeros_like(counts.cell_group) if pooling == "pooled" else counts.cell_group
    total, exposure = (
        np.bincount(group, counts.cell_multiplicity * each) for each in (counts.cell_count, counts.cell_exposure)
    )
    shape = (4, 4000, *([] if pooling == "pooled" else [len(total)]))
    lam = np.random.default_rng(0).gamma(2 + total, 1 / (0.2 + exposure), (4, 4000, len(total))).reshape(shape)
    return nuts.Fit({"lam": lam}, {"lp": np.zeros((4, 4000))})


def mended(counts, pooling, likelihood):
    """LOO before and after the replacement."""
    is_conjugate = pooling != "hierarchical" and likelihood == "poisson"
    draws = conjugate(counts, pooling) if is_conjugate else fit_cookies(counts, pooling, likelihood)
    before, posterior, cells = loo_of(draws, counts)
    model, values = model_of(pooling, likelihood), values_of(pooling, likelihood)
    return before, integrated_loo.integrated_where_doubtful(before, posterior, cells, model, values, r_eff=1.0)


@pytest.fixture(scope="module")
def singles():
    """Forty groups of one row: each row is all that is known of its rate."""
    rng = np.random.default_rng(0)
    return counts_from_rows([f"g{g:02d}" for g in range(40)], rng.poisson(rng.gamma(5.0, 9.0 / 5.0, 40)))


def test_single_rows_of_unpooled_groups_are_exact_where_psis_fails(singles):
    # a new count from the prior Gamma(2, 0.2) is NegativeBinomial(2, 0.2 / 1.2)
    before, after = mended(singles, "unpooled", "poisson")
    exact = stats.nbinom.logpmf(singles.cell_count, 2, 0.2 / 1.2)
    assert before.elpd - exact.sum() > 3
    assert after.cell_elpd == pytest.approx(exact, abs=1e-9)
    assert (after.mcse, after.bad_rows, after.psis) == (0, 0, before)


def test_pairs_of_unpooled_groups_are_exact_with_every_row_by_one_estimator():
    # 300 groups of two rows: the row beside gives Gamma(2 + y, 1.2), so a count is NegativeBinomial(2 + y, 1.2 / 2.2);
    # PSIS is 7 too high, and 0.4 if only the rows with a k above 0.4 are replaced, at a Monte Carlo error of 0.06
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.gamma(5.0, 9.0 / 5.0, 300)[:, None], (300, 2))
    table = counts_from_rows(np.repeat([f"g{g:03d}" for g in range(300)], 2), counts.ravel())
    before, after = mended(table, "unpooled", "poisson")
    exact = stats.nbinom.logpmf(counts, 2 + counts[:, ::-1], 1.2 / 2.2).sum()
    assert before.elpd - exact > 5
    assert np.any(before.pareto_k <= integrated_loo.DOUBTFUL)
    assert after.elpd == pytest.approx(exact, abs=1e-6)


def test_rows_alike_in_groups_alike_are_computed_once(singles, monkeypatch):
    made, integral_of = [], leave_group_out._log_marginal
    monkeypatch.setattr(leave_group_out, "_log_marginal", lambda *args: made.append(args[0]) or integral_of(*args))
    mended(singles, "unpooled", "poisson")
    assert len([rows for rows in made if any(rows.multiplicity)]) == len(set(singles.cell_count))


def test_single_rows_of_a_hierarchy_come_within_their_monte_carlo_error(singles):
    exact = exact_reference.exact("hierarchical", "poisson", groups_of(singles))
    before, after = mended(singles, "hierarchical", "poisson")
    assert before.bad_rows > 5 and after.bad_rows == 0
    assert abs(before.elpd - exact.elpd_loo) > 0.5
    assert abs(after.elpd - exact.elpd_loo) < 4 * after.mcse < 0.4
    assert abs(after.p_loo - exact.p_loo) < 0.3 < abs(before.p_loo - exact.p_loo)


@pytest.mark.slow
def test_single_rows_of_an_unpooled_negative_binomial_come_near_the_exact_values(singles):
    exact = exact_reference.exact("unpooled", "negative_binomial", groups_of(singles))
    before, after = mended(singles, "unpooled", "negative_binomial")
    assert np.abs(before.cell_elpd - exact.elpd).max() > 0.2
    assert np.abs(after.cell_elpd - exact.elpd).max() < 0.005
    assert after.bad_rows == 0


def test_the_other_rows_of_the_group_stay():
    # rate Gamma(2, 0.2) given 7 events in an exposure of 0.5: a second row of exposure 3 is NB(9, 0.7 / 3.7)
    table = counts_from_rows(["a", "a", "b"], [7, 30, 5], [0.5, 3.0, 1.0])
    _, after = mended(table, "unpooled", "poisson")
    assert after.cell_elpd[1] == pytest.approx(stats.nbinom.logpmf(30, 9, 0.7 / 3.7), abs=1e-9)


def test_a_pooled_model_is_one_group():
    # one rate for rows 0 and 20 of two groups: 20 given 0 is NB(2, 1.2 / 2.2)
    _, after = mended(counts_from_rows(["a", "b"], [0, 20]), "pooled", "poisson")
    assert after.cell_elpd[1] == pytest.approx(stats.nbinom.logpmf(20, 2, 1.2 / 2.2), abs=1e-9)


def test_a_fit_that_psis_can_do_is_left_alone(fit_of, cookies):
    before, posterior, cells = loo_of(fit_of("hierarchical", "poisson"), cookies)
    model, values = model_of("hierarchical", "poisson"), values_of("hierarchical", "poisson")
    assert integrated_loo.integrated_where_doubtful(before, posterior, cells, model, values, r_eff=1.0) is before


def test_a_fit_with_no_fewer_rows_in_doubt_stays_with_psis(singles, monkeypatch):
    monkeypatch.setattr(leave_group_out, "_integrated", lambda *_, **__: replace(WORSE, cell_elpd=np.zeros(17)))
    before, after = mended(singles, "unpooled", "poisson")
    assert after is before


WORSE = loo.Loo(0.0, 0.0, 0.0, 0.0, np.zeros(17), np.ones(17), 0.7, bad_rows=41)


def test_blocks_do_not_change_integrated_values(singles, monkeypatch):
    _, whole = mended(singles, "hierarchical", "poisson")
    monkeypatch.setattr("poolwise.predictive.BLOCK", 7 * 16_000)
    _, blocked = mended(singles, "hierarchical", "poisson")
    assert blocked.elpd == pytest.approx(whole.elpd, rel=1e-12)
    assert np.array_equal(blocked.pareto_k, whole.pareto_k)


def test_fewer_draws_where_all_would_take_minutes_give_nearly_the_same(singles, monkeypatch):
    _, whole = mended(singles, "hierarchical", "poisson")
    monkeypatch.setattr(leave_group_out, "WORK", 1)  # then LEAST draws, one in sixteen
    _, some = mended(singles, "hierarchical", "poisson")
    assert some.elpd != whole.elpd
    assert abs(some.elpd - whole.elpd) < 4 * some.mcse < 1


def test_even_weights_have_no_tail():
    rng = np.random.default_rng(0)
    heavy = -rng.exponential(0.9, (1, 4, 1000))  # weights with tail index 0.9
    even = np.log(rng.uniform(0.3, 0.5, (1, 4, 1000)))
    assert integrated_loo._is_even(np.concatenate([even, heavy])).tolist() == [True, False]


# One group left out.


def refitted(counts, pooling, likelihood, *, rates="sampled", sampler=SHORT, **rest):
    model, values = model_of(pooling, likelihood, rates=rates), values_of(pooling, likelihood)
    return leave_group_out.leave_group_out(model, counts, values, seed=0, sampler=sampler, device=DEVICE, **rest)


@pytest.fixture(scope="module")
def left_out(cookies):
    """`left_out[pooling, likelihood]`, with how many programs there were before each group."""
    found = {}
    for pooling, likelihood in VARIANTS:
        made = []

        def note(label, made=made):
            made.append(sum(devices.programs_made().values()))

        rates = "standardised" if pooling == "hierarchical" else "sampled"
        groups = refitted(cookies, pooling, likelihood, rates=rates, on_group=note)
        note("")
        found[pooling, likelihood] = groups, made
    return found


@pytest.mark.parametrize(("pooling", "likelihood"), VARIANTS)
def test_group_left_out_has_the_exact_value(pooling, likelihood, left_out):
    found, _ = left_out[pooling, likelihood]
    assert np.all(np.abs(found.elpd - LEFT_OUT[pooling, likelihood]) < 4 * found.mcse + 1e-5)
    assert found.total_mcse < 0.12
    assert found.suspect == ()


@pytest.mark.slow
@pytest.mark.parametrize("rates", FORMS)
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_every_form_of_the_rates_gives_the_exact_values(likelihood, rates, cookies):
    found = refitted(cookies, "hierarchical", likelihood, rates=rates, sampler=SAMPLER)
    assert np.all(np.abs(found.elpd - LEFT_OUT["hierarchical", likelihood]) < 4 * found.mcse)
    assert found.total_mcse < 0.06
    assert found.suspect == ()


def test_group_left_out_is_placed_by_the_population_alone(cookies):
    # next to no rows: log lam lies around log mu with the spread of the population, for any mu and sigma
    statistics = sufficient_statistics(leave_group_out.without_group(cookies, 1))
    sites = {"mu": 9.0, "sigma": 2.0, "z": np.zeros(5)}

    def rates_of(**changes):
        seeded = handlers.seed(handlers.substitute(model.collapsed, data=sites | changes), 0)
        return handlers.trace(seeded).get_trace(statistics, values)["lam"]["value"]

    model, values = model_of("hierarchical", "poisson", rates="standardised"), values_of("hierarchical", "poisson")
    assert rates_of()[1] == pytest.approx(9.0, rel=1e-6)
    assert np.log(rates_of(z=np.ones(5))[1] / 9.0) == pytest.approx(2.0 / 9.0, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("pooling", "likelihood"), VARIANTS)
def test_values_held_against_are_those_of_the_reference(pooling, likelihood, cookies):
    groups = groups_of(cookies)
    whole, *parts = (
        exact_reference.exact(pooling, likelihood, some).log_marginal
        for some in (groups, *(groups[:g] + groups[g + 1 :] for g in range(5)))
    )
    assert whole - np.array(parts) == pytest.approx(LEFT_OUT[pooling, likelihood], abs=2e-6)


def test_unpooled_poisson_groups_left_out_are_the_marginal_likelihood(left_out):
    found, _ = left_out["unpooled", "poisson"]
    assert found.total == pytest.approx(-401.94838, abs=1e-5)  # shared/exact_references.json
    assert found.total_mcse == 0


def test_refits_share_one_program(left_out):
    # the first group may compile the fit and the integral over its rate; those after it nothing
    for variant in (("pooled", "negative_binomial"), ("unpooled", "negative_binomial")):
        made = left_out[variant][1]
        assert len(set(made[1:])) == 1, made


def test_a_refit_that_misses_the_gate_is_made_again_with_integrated_rates(cookies, monkeypatch):
    # without location 2 the others are alike, and sigma has a funnel
    forms = []

    def counting(model, **arguments):
        forms.append(model.rates)
        return fit_once(model, **arguments)

    fit_once = nuts.fit
    monkeypatch.setattr(leave_group_out.fit, "fit", counting)
    found = refitted(cookies, "hierarchical", "poisson", sampler=SAMPLER)
    assert forms[1:3] == ["sampled", "integrated"]
    assert found.divergences.sum() == 0


def test_table_without_a_group_weighs_as_if_the_group_were_not_there(cookies):
    group, _, count = cookies.rows()
    less = sufficient_statistics(leave_group_out.without_group(cookies, 1))
    kept = sufficient_statistics(counts_from_rows(group[group != 1], count[group != 1]))
    whole = sufficient_statistics(cookies)
    assert {name: value.shape for name, value in less.items()} == {name: value.shape for name, value in whole.items()}
    for name in ("group_total", "group_exposure", "stratum_rows", "stratum_total"):
        assert np.delete(less[name], 1) == pytest.approx(kept[name], rel=1e-12)
        assert less[name][1] < 1e-20
    assert less["constant"] == pytest.approx(kept["constant"], rel=1e-12)
    assert less["value_rows"].sum() == pytest.approx(120)


def test_groups_have_random_numbers_of_their_own(cookies, fit_of, monkeypatch):
    seeds, drawn = [], fit_of("unpooled", "negative_binomial")

    def stop(*arguments, seed, **rest):
        seeds.append(seed)
        return drawn

    monkeypatch.setattr(leave_group_out.fit, "fit", stop)
    model, values = model_of("unpooled", "negative_binomial"), values_of("unpooled", "negative_binomial")
    for seed in (0, 1):
        leave_group_out.leave_group_out(model, cookies, values, seed=seed, sampler=SAMPLER, device=DEVICE)
    assert len(set(seeds)) == 10


def groups_out(**changes):
    one = {"labels": ("a", "b"), "elpd": np.array([-10.0, -14.0]), "mcse": np.array([0.3, 0.4])}
    one |= {"pareto_k": np.zeros(2), "r_hat": np.ones(2), "ess": np.full(2, 500.0), "divergences": np.zeros(2)}
    return leave_group_out.GroupsOut(**(one | {"num_chains": 4, "k_threshold": 0.7} | changes))


def test_total_se_and_error_of_groups():
    found = groups_out()
    assert (found.total, found.total_mcse) == (-24.0, pytest.approx(0.5))
    assert found.se == pytest.approx(np.sqrt(2) * np.std([-10, -14], ddof=1))  # of a sum of two


@pytest.mark.parametrize(
    "changes",
    [
        {"r_hat": np.array([1.0, 1.02])},
        {"ess": np.array([500.0, 399.0])},
        {"divergences": np.array([0.0, 1.0])},
        {"pareto_k": np.array([0.1, 0.8])},
        {"elpd": np.array([-10.0, np.nan])},
        {"r_hat": np.array([1.0, np.nan])},
    ],
)
def test_group_whose_refit_misses_the_gate_is_suspect(changes):
    assert groups_out(**changes).suspect == ("b",)


def test_log_mean_has_the_error_of_its_draws():
    log_values = np.random.default_rng(0).normal(0.0, 0.5, (4, 4000))
    value, mcse, _ = leave_group_out._mean(log_values)
    assert value == pytest.approx(0.125, abs=4 * mcse)  # of a log-normal: sigma^2 / 2
    assert mcse == pytest.approx(array_stats.mcse(np.exp(log_values), method="mean") / np.exp(value), rel=1e-9)


def test_log_mean_of_values_with_a_heavy_tail_says_so():
    heavy = np.random.default_rng(0).exponential(0.9, (4, 4000))  # their exponentials have tail index 0.9
    assert leave_group_out._mean(heavy)[2] == pytest.approx(0.9, abs=0.15)
    assert leave_group_out._mean(heavy / 9)[2] < 0.3
