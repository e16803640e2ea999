"""Ranks and the verdict on them, against closed forms and against simulation."""

import numpy as np
import pytest
from scipy import stats

from poolwise.calibration import ranks as sbc


def uniform_ranks(number: int, *, size: int, num_draws: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, num_draws + 1, (number, size))


def test_rank_is_the_number_of_draws_below_the_truth():
    draws = np.array([[3.0, 1.0, 2.0], [5.0, 6.0, 7.0]])
    assert sbc.ranks(draws, np.array([2.5, 4.0]), np.random.default_rng(0)).tolist() == [2, 0]


def test_rank_of_a_truth_that_ties_is_any_of_those_left_open():
    # one draw below, two equal: 1, 2 and 3 with equal chance
    draws = np.tile([0.0, 1.0, 1.0, 9.0], (3000, 1))
    found = np.bincount(sbc.ranks(draws, np.ones(3000), np.random.default_rng(0)))
    assert stats.chisquare(found[1:]).pvalue > 0.001
    assert found[0] == 0


def test_p_value_of_ranks_0_and_1_is_that_of_the_binomial_test():
    # L = 1: X_1 is Bin(40, 1/2), symmetric
    ranks = np.repeat([0, 1], [27, 13])
    assert sbc.p_value(ranks, num_draws=1) == pytest.approx(stats.binomtest(27, 40).pvalue, rel=1e-9)


def test_p_value_is_the_share_of_uniform_rank_sets_that_stray_as_far():
    def extreme(ranks):
        due = stats.binom(60, np.arange(1, 20) / 20)
        below = np.array([np.cumsum(np.bincount(each, minlength=20))[:-1] for each in ranks])
        return np.min(np.minimum(1, 2 * np.minimum(due.cdf(below), due.sf(below - 1))), axis=1)

    (one,) = uniform_ranks(1, size=60, num_draws=19, seed=8)
    simulated = extreme(uniform_ranks(20_000, size=60, num_draws=19, seed=1))
    share = np.mean(simulated <= extreme([one])[0] * (1 + 1e-9))
    assert abs(sbc.p_value(one, num_draws=19) - share) < 4 * np.sqrt(share * (1 - share) / 20_000)


def test_p_values_of_uniform_ranks_are_uniform():
    p = np.array([sbc.p_value(each, num_draws=19) for each in uniform_ranks(600, size=100, num_draws=19)])
    assert stats.kstest(p, "uniform").pvalue > 0.001


def test_band_holds_whole_curves_as_often_as_it_says():
    low, high = sbc.band(100, num_draws=19, level=0.1)
    ranks = uniform_ranks(4000, size=100, num_draws=19)
    below = np.array([np.cumsum(np.bincount(each, minlength=20))[:-1] for each in ranks])
    outside = np.mean(np.any((below < low) | (below > high), axis=1))
    assert 0.07 < outside < 0.1 + 4 * np.sqrt(0.09 / 4000)  # X_k are whole numbers, so not quite 0.1


def test_a_curve_leaves_the_band_exactly_when_its_p_value_is_at_the_level():
    low, high = sbc.band(80, num_draws=19, level=0.2)
    found = []
    for each in uniform_ranks(100, size=80, num_draws=19):
        below = np.cumsum(np.bincount(each, minlength=20))[:-1]
        found.append((bool(np.any((below < low) | (below > high))), sbc.p_value(each, num_draws=19) <= 0.2))
    assert len(set(found)) == 2
    assert all(leaves is is_found for leaves, is_found in found)


def test_difference_of_the_ecdf_is_at_0_at_both_ends():
    # ranks 0, 0, 1, 3 of L = 3: ECDF 1/2, 3/4, 3/4, 1 at 1/4, 1/2, 3/4, 1
    found = sbc.differences(np.array([0, 0, 1, 3]), num_draws=3)
    assert found == pytest.approx([0, 0.25, 0.25, 0, 0])


@pytest.mark.parametrize(
    ("places", "told"),
    [
        (lambda u: np.where(np.arange(u.size) % 10, u, u / 50), "small values are missed"),
        (lambda u: np.where(np.arange(u.size) % 10, u, 1 - u / 50), "large values are missed"),
        (lambda u: stats.norm.cdf(1.5 * stats.norm.ppf(u)), "intervals are too narrow"),
        (lambda u: stats.norm.cdf(0.5 * stats.norm.ppf(u)), "intervals are too wide"),
        (lambda u: u**1.15, "draws are too large"),
        (lambda u: u**0.87, "draws are too small"),
        (lambda u: 0.05 + 0.95 * u, "small values come too often"),
    ],
)
def test_departure_says_in_words_what_is_wrong(places, told):
    u = (np.arange(1000) + 0.5) / 1000
    assert sbc.departure(places(u)).startswith(told)


def test_judge_marks_the_quantity_that_is_off_and_no_other():
    ranks = uniform_ranks(300, size=3, num_draws=99)  # (M, Q)
    ranks[:60, 1] = ranks[:60, 1] // 20
    table = sbc.judge(ranks, ("mu", "sigma", "lam"), num_draws=99)
    assert table["is_calibrated"].to_dict() == {"mu": True, "sigma": False, "lam": True}
    assert table.loc["sigma", "how"].startswith("small values are missed")
    assert (table.loc["mu", "how"], table.loc["lam", "how"]) == ("", "")


def test_effective_draws_of_an_autoregressive_chain():
    # AR(1) with coefficient 1/2: ESS / L is (1 - 1/2) / (1 + 1/2) = 1/3, lag 1 is 1/2
    noise = np.random.default_rng(0).normal(size=(20, 5000))
    chain = np.zeros_like(noise)
    for t in range(1, 5000):
        chain[:, t] = 0.5 * chain[:, t - 1] + noise[:, t]
    ess, correlation = sbc.effective(chain)
    assert np.median(ess) / 5000 == pytest.approx(1 / 3, rel=0.08)
    assert correlation.mean() == pytest.approx(0.5, abs=0.01)


def test_effective_draws_of_a_chain_that_does_not_move_is_one():
    ess, correlation = sbc.effective(np.full((1, 99), 7.3))
    assert (ess.item(), correlation.item()) == (1.0, 1.0)
