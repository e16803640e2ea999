"""Joint draws of rates to ranks and contrasts: against exact probabilities, and calibrated over simulated tables."""

from itertools import combinations

import numpy as np
import pytest
import xarray as xr
from scipy.special import betainc, gammaln

from poolwise.checks import group_contrasts
from poolwise.checks.group_contrasts import (
    DECIDED,
    OVERALL,
    PAIRS,
    RANK_HIGH,
    RANK_LOW,
    GroupRates,
    contrasts,
    group_rates,
    indistinct,
    is_decided,
    ranking,
    share_greater,
)
from poolwise.checks.summary import HIGH, LOW, summarise

TOTALS, EXPOSURES = np.array([3, 12, 40, 0, 25]), np.array([2.0, 3.0, 8.0, 1.5, 8.0])
SHAPE, RATE = 2.0, 0.2  # of the gamma prior on a rate


def rates_of(draws, totals=TOTALS, exposures=EXPOSURES) -> GroupRates:
    """The rates of draws (G, S), one row per group."""
    labels = np.array([f"g{i}" for i in range(len(draws))], object)
    lam = np.moveaxis(np.asarray(draws).reshape(len(draws), 4, -1), 0, 2)
    posterior = xr.Dataset({"lam": (("chain", "draw", "group"), lam)}, coords={"group": labels})
    cells = {"group": np.arange(len(draws)), "multiplicity": np.ones(len(draws), int)}
    cells |= {"count": np.asarray(totals), "exposure": np.asarray(exposures)}
    return group_rates(posterior, xr.Dataset({f"cell_{name}": ("cell", each) for name, each in cells.items()}))


@pytest.fixture(scope="module")
def conjugate() -> GroupRates:
    """Independent draws from the exact posterior of unpooled Poisson rates."""
    rng = np.random.default_rng(1)
    return rates_of(rng.gamma(SHAPE + TOTALS[:, None], 1 / (RATE + EXPOSURES[:, None]), (5, 40_000)))


def p_greater(one: int, other: int) -> float:
    """P(A > B) of A ~ Gamma(a1, b1) and B ~ Gamma(a2, b2): b2 B / (b1 A + b2 B) ~ Beta(a2, a1)."""
    a, b = SHAPE + TOTALS, RATE + EXPOSURES
    return float(betainc(a[other], a[one], b[other] / (b[one] + b[other])))


def test_p_greater_of_independent_gamma_rates_is_an_incomplete_beta_function(conjugate):
    found = conjugate.greater(range(5))
    for one, other in combinations(range(5), 2):
        exact = p_greater(one, other)
        error = np.sqrt(exact * (1 - exact) / 40_000)
        assert abs(found[one, other] - exact) < 4 * error
        assert found[other, one] == pytest.approx(1 - found[one, other])


def test_contrasts_hold_every_pair_the_higher_mean_first(conjugate):
    table = contrasts(conjugate)
    assert len(table) == 10
    means = dict(zip(conjugate.labels, conjugate.mean, strict=True))
    for label, row in table.iterrows():
        exact = p_greater(int(label[1]), int(row["against"][1]))
        assert means[label] > means[row["against"]]
        assert row["difference"] == pytest.approx(means[label] - means[row["against"]])
        assert abs(row["p_greater"] - exact) < 4 * np.sqrt(exact * (1 - exact) / 40_000)


def test_expected_loss_is_the_mean_shortfall(conjugate):
    # E max(B - A, 0) = E B P(B' > A) - E A P(B > A'), where a prime adds one to the shape of a gamma
    a, b = SHAPE + TOTALS, RATE + EXPOSURES
    table = contrasts(conjugate, against="g0")
    for label, row in table.iterrows():
        one, x = int(label[1]), b[0] / (b[int(label[1])] + b[0])
        more = a[0] / b[0] * betainc(a[one], a[0] + 1, 1 - x) - a[one] / b[one] * betainc(a[one] + 1, a[0], 1 - x)
        draws = np.maximum(conjugate.draws[0] - conjugate.draws[one], 0)
        assert abs(row["expected_loss"] - more) < 4 * draws.std() / np.sqrt(draws.size)


def test_intervals_of_a_contrast_turn_with_the_order_of_the_pair(conjugate):
    forth, back = contrasts(conjugate, "g0").loc["g2"], contrasts(conjugate, "g2").loc["g0"]
    assert forth["difference_3%"] == pytest.approx(-back["difference_97%"])
    assert forth["ratio_3%"] == pytest.approx(1 / back["ratio_97%"], rel=1e-3)
    assert forth["p_greater"] == pytest.approx(1 - back["p_greater"])


def test_ranking_is_sorted_with_the_intervals_of_the_summary(conjugate):
    table = ranking(conjugate)
    assert list(table["rate"]) == sorted(conjugate.mean, reverse=True)
    lam = np.moveaxis(conjugate.draws.reshape(5, 4, -1), 0, 2)
    posterior = xr.Dataset({"lam": (("chain", "draw", "group"), lam)}, coords={"group": list(conjugate.labels)})
    summary = summarise(posterior).loc[[f"lam.{label}" for label in table.index]]
    assert (table[[LOW, HIGH]].values == summary[[LOW, HIGH]].values).all()
    assert table["rate"].values == pytest.approx(summary["mean"].values)
    assert table.loc["g2", ["rows", "total", "exposure"]].tolist() == [1, 40, 8.0]


def test_ranks_are_those_of_scipy(conjugate):
    from scipy.stats import rankdata

    rank = 6 - rankdata(conjugate.draws, axis=0)  # 1 for the highest
    table = ranking(conjugate).loc[list(conjugate.labels)]
    assert table["expected_rank"].values == pytest.approx(rank.mean(axis=1))
    assert table["p_highest"].values == pytest.approx((rank == 1).mean(axis=1))
    assert table["p_lowest"].values == pytest.approx((rank == 5).mean(axis=1))
    for (low, high), ranks in zip(table[[RANK_LOW, RANK_HIGH]].values, rank, strict=True):
        tails = [(abs((ranks < end).mean() - 0.05), end) for end in range(1, 6)]
        assert low == min(tails)[1]
        tails = [(abs((ranks > end).mean() - 0.05), end) for end in range(1, 6)]
        assert high == min(tails)[1]


def test_overall_rate_weighs_groups_by_exposure_within_a_draw(conjugate):
    overall = np.average(conjugate.draws, axis=0, weights=EXPOSURES)
    above = (conjugate.draws > overall).mean(axis=1)
    assert ranking(conjugate).loc[list(conjugate.labels), "p_above_overall"].values == pytest.approx(above)
    assert conjugate.above(4.0) == pytest.approx((conjugate.draws > 4.0).mean(axis=1))


def test_many_groups_are_compared_with_the_overall_rate():
    draws = np.random.default_rng(2).gamma(9.0, 1.0, (PAIRS + 1, 400))
    many = rates_of(draws, np.full(PAIRS + 1, 9), np.ones(PAIRS + 1))
    table = contrasts(many)
    assert len(table) == PAIRS + 1 and set(table["against"]) == {OVERALL}
    first = int(table.index[0][1:])
    assert table["difference"].iloc[0] == pytest.approx(draws[first].mean() - draws.mean())


@pytest.mark.parametrize(("work", "least", "kept"), [(24, 4, 3), (2, 8, 2), (10**6, 4, 100)])
def test_more_draws_than_can_be_compared_are_thinned_evenly_in_each_chain(monkeypatch, work, least, kept):
    # two groups and four chains of 100 draws: work / 2 draws, and at least `least`, in four equal parts
    monkeypatch.setattr(group_contrasts, "WORK", work)
    monkeypatch.setattr(group_contrasts, "LEAST", least)
    draws = np.arange(800.0).reshape(2, 400)
    found = rates_of(draws, [1, 1], [1.0, 1.0])
    places = np.linspace(0, 99, kept).round()
    assert found.draws[0].tolist() == [100 * chain + place for chain in range(4) for place in places]
    assert found.mean.tolist() == [199.5, 599.5]  # of all draws


def test_equal_draws_of_two_rates_are_split_evenly():
    assert share_greater(np.ones(4), np.ones(4)) == 0.5


def test_one_rate_and_one_group_have_nothing_to_rank():
    cells = xr.Dataset({"cell_group": ("cell", [0])})
    shared = xr.Dataset({"lam": (("chain", "draw"), np.ones((2, 5)))})
    single = xr.Dataset({"lam": (("chain", "draw", "group"), np.ones((2, 5, 1)))})
    assert group_rates(shared, cells) is None and group_rates(single, cells) is None


@pytest.mark.parametrize(
    ("decided", "runs"),
    [
        ([], [range(0, 4)]),  # no pair is decided
        ([(0, 1), (0, 2), (0, 3)], [range(1, 4)]),  # the first is higher than all others
        ([(0, 2), (0, 3), (1, 3)], [range(0, 2), range(1, 3), range(2, 4)]),  # each only like its neighbours
        ([(0, 3)], [range(0, 3), range(1, 4)]),
        ([(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)], []),
    ],
)
def test_indistinct_groups_are_the_longest_runs_without_a_decided_pair(decided, runs):
    greater = np.full((4, 4), 0.5)
    for one, other in decided:
        greater[one, other], greater[other, one] = 0.99, 0.01
    assert indistinct(greater) == runs


def test_pair_is_decided_by_its_probability_and_not_by_its_intervals():
    # correlated draws: wide intervals that overlap, and a difference that is always positive
    base = np.random.default_rng(3).gamma(4.0, 1.0, 4000)
    pair = rates_of([base + 0.1, base], [4, 4], [1.0, 1.0])
    assert pair.low[0] < pair.high[1]
    assert is_decided(contrasts(pair)["p_greater"]).all()


# Calibration over tables that are simulated from the hierarchical Poisson model with the default priors.

GRID, PASSES, DEEP = 40, 5, 14.0


def log_joint(mu, sigma, totals, exposures):
    """Log of prior and marginal likelihood with the rates integrated out, on (log mu, log sigma)."""
    a, b = (mu / sigma)[..., None] ** 2, (mu / sigma**2)[..., None]
    by_group = gammaln(a + totals) - gammaln(a) - a * np.log1p(exposures / b) - totals * np.log(b + exposures)
    return by_group.sum(axis=-1) + 2 * np.log(mu) - RATE * mu - sigma + np.log(sigma)


def hierarchical_draws(totals, exposures, rng, size):
    """Draws of the rates, (G, S), from a grid over (log mu, log sigma) that is narrowed to where the mass is."""
    middle = np.log((totals.sum() + 1) / exposures.sum())
    box = [(middle - 4, middle + 4), (np.log(1e-3), np.log(60.0))]
    for step in range(PASSES):
        axes = [np.linspace(*ends, GRID) for ends in box]
        mu, sigma = np.exp(np.meshgrid(*axes, indexing="ij"))
        log_p = log_joint(mu, sigma, totals, exposures)
        inside = log_p > log_p.max() - DEEP
        steps = [each[1] - each[0] for each in axes]
        found = [np.flatnonzero(inside.any(axis=1 - i)) for i in (0, 1)]
        for i in (0, 1)[: 1 + (step >= PASSES // 2)]:  # sigma last: it looks larger while mu is too coarse
            box[i] = (axes[i][found[i][0]] - steps[i], axes[i][found[i][-1]] + steps[i])
    p = np.exp(log_p - log_p.max()).ravel()
    nodes = np.unravel_index(rng.choice(p.size, 2 * size, p=p / p.sum()), log_p.shape)
    at = [np.exp(axes[i][nodes[i]] + steps[i] * (rng.random(2 * size) - 0.5)) for i in (0, 1)]
    weight = np.exp(log_joint(*at, totals, exposures) - log_p[nodes])
    kept = rng.choice(2 * size, size, p=weight / weight.sum())
    mu, sigma = (each[kept] for each in at)
    return rng.gamma(mu**2 / sigma**2 + totals[:, None], 1 / (mu / sigma**2 + exposures[:, None]))


def study(num_tables, num_groups, size=800, seed=0, equal=False, most=10):
    """Of simulated tables: coverage and mass of rank intervals, and P(A > B) with whether A is the higher."""
    rng = np.random.default_rng(seed)
    covered, mass, predicted, happened = [], [], [], []
    for _ in range(num_tables):
        mu, sigma = rng.gamma(2.0, 5.0), rng.exponential(1.0)
        lam = np.full(num_groups, mu) if equal else rng.gamma((mu / sigma) ** 2, sigma**2 / mu, num_groups)
        exposures = np.exp(rng.uniform(0, np.log(most), num_groups)).round()
        totals = rng.poisson(lam * exposures)
        draws = hierarchical_draws(totals, exposures, rng, size)
        rates = rates_of(draws, totals, exposures)
        table = ranking(rates).loc[list(rates.labels)]
        low, high = table[[RANK_LOW, RANK_HIGH]].to_numpy().T
        true = 1 + (lam[None] > lam[:, None]).sum(axis=1)
        covered.append(((low <= true) & (true <= high)).mean())
        rank = 1 + (-rates.draws).argsort(axis=0).argsort(axis=0)
        mass.append(((low[:, None] <= rank) & (rank <= high[:, None])).mean())
        first, second = np.triu_indices(num_groups, 1)
        predicted.append(rates.greater(range(num_groups))[first, second])
        happened.append(lam[first] > lam[second])
    return tuple(map(np.array, (covered, mass, predicted, happened)))


@pytest.mark.slow
def test_rank_intervals_cover_and_probabilities_are_reliable():
    covered, mass, predicted, happened = study(1000, 40)
    assert 0.88 < covered.mean() < 0.92
    error = covered.std() / np.sqrt(len(covered))  # tables are independent, the groups of a table are not
    assert abs(covered.mean() - mass.mean()) < 4 * error
    for low in np.arange(0, 1, 0.1):
        inside = (predicted >= low) & (predicted < low + 0.1)
        by_table = np.array([(h[i] - p[i]).sum() for p, h, i in zip(predicted, happened, inside, strict=True)])
        assert abs(by_table.sum()) < 4 * np.sqrt((by_table**2).sum())


@pytest.mark.slow
def test_groups_of_equal_rates_are_seldom_told_apart():
    # a hierarchy shrinks equal rates together: of ten groups a pair is called decided in few tables
    _, _, predicted, _ = study(500, 10, equal=True)
    assert np.mean((np.maximum(predicted, 1 - predicted) > DECIDED).any(axis=1)) < 0.05
