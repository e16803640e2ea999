"""Ranks of the truth among posterior draws to a verdict on its calibration.

A truth drawn from the prior and L nearly independent draws from its posterior are exchangeable. The rank of the truth,
the number of draws below it, is therefore uniform on 0..L. Let X_k be the number of M simulations with a rank below k.
X_k is binomial (M, k / (L + 1)), and (X_1, ..., X_L) is a Markov chain: each rank that is not below k - 1 equals k - 1
with probability 1 / (L + 2 - k), independently. The statistic of a quantity is the smallest two-sided tail probability
of any X_k. Its p-value and the simultaneous band for all X_k follow exactly from the chain.

References
----------
Modrák, Moon, Kim, Bürkner, Huurre, Faltejsková, Gelman and Vehtari (2023), Simulation-based calibration checking for
Bayesian computation: the choice of test quantities shapes sensitivity, Bayesian Analysis, doi:10.1214/23-BA1404.
Talts, Betancourt, Simpson, Vehtari and Gelman (2018), Validating Bayesian inference algorithms with simulation-based
calibration, arXiv:1804.06788.
Säilynoja, Bürkner and Vehtari (2022), Graphical test for discrete uniformity and its applications in goodness-of-fit
evaluation and multiple sample comparison, Statistics and Computing 32, doi:10.1007/s11222-022-10090-6.
"""

import functools

import numpy as np
import pandas as pd
from scipy.special import gammaln
from scipy.stats import binom, kstest

LEVEL = 0.01  # probability of calling a calibrated variant miscalibrated, over all its quantities together
TAIL = 0.05  # share of the ranks, at either end, that the text reports
SMALLEST = 1e-12  # smallest p-value that float64 resolves here
NOTICED = 2.5  # standard errors from which a share or a mean of ranks is reported


def ranks(draws: np.ndarray, truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Number of draws below the truth, ties broken at random: (..., L) and (...)."""
    below = np.sum(draws < truth[..., None], axis=-1)
    return below + rng.integers(0, np.sum(draws == truth[..., None], axis=-1), endpoint=True)


def effective(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Effective sample size of each chain (..., L), and its autocorrelation at lag 1.

    By Geyer's initial monotone sequence. Autocorrelations of short chains are biased low by about 1 / L. A chain that
    does not move has one effective draw.
    """
    length = draws.shape[-1]
    centred = draws - draws.mean(axis=-1, keepdims=True)
    spectrum = np.abs(np.fft.rfft(centred, 2 * length)) ** 2
    covariance = np.fft.irfft(spectrum, 2 * length)[..., :length]
    moves = covariance[..., :1] > 1e-20 * np.maximum(np.square(draws).sum(axis=-1, keepdims=True), 1e-200)
    correlation = np.where(moves, covariance / np.where(moves, covariance[..., :1], 1.0), 1.0)
    even = correlation[..., : length // 2 * 2]
    pairs = np.minimum.accumulate(even[..., ::2] + even[..., 1::2], axis=-1)
    time = np.maximum(2.0 * np.where(pairs > 0, pairs, 0.0).sum(axis=-1) - 1.0, 1.0 / np.log10(length))
    return np.where(moves[..., 0], length / time, 1.0), correlation[..., 1]


def differences(ranks: np.ndarray, *, num_draws: int) -> np.ndarray:
    """ECDF of the ranks (M,) minus the uniform one, at k / (L + 1) for k = 0..L + 1."""
    counts = np.bincount(ranks, minlength=num_draws + 1)
    expected = np.arange(num_draws + 2) / (num_draws + 1)
    return np.concatenate([[0], np.cumsum(counts)]) / len(ranks) - expected


def p_value(ranks: np.ndarray, *, num_draws: int) -> float:
    """p-value of the ranks (M,): probability of a curve at least this far from uniform at any point."""
    tails = _tails(len(ranks), num_draws)
    below = np.cumsum(np.bincount(ranks, minlength=num_draws + 1))[:-1]  # (L,), X_k
    extreme = np.min(tails[np.arange(num_draws), below])
    return max(SMALLEST, 1.0 - _coverage(len(ranks), num_draws, extreme * (1 + 1e-9)))


@functools.lru_cache(maxsize=16)
def band(num_simulations: int, *, num_draws: int, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest X_k, k = 1..L, of curves that pass at this level."""
    low, high = np.log(level) - np.log(2.0 * num_draws), np.log(level)  # by Bonferroni; by a single k
    for _ in range(14):
        middle = 0.5 * (low + high)
        is_wide = 1.0 - _coverage(num_simulations, num_draws, np.exp(middle)) <= level
        low, high = (middle, high) if is_wide else (low, middle)
    inside = _tails(num_simulations, num_draws) > np.exp(low)
    return inside.argmax(axis=1), num_simulations - inside[:, ::-1].argmax(axis=1)


def judge(ranks: np.ndarray, names: tuple[str, ...], *, num_draws: int) -> pd.DataFrame:
    """One row per quantity: p-value, verdict, and how its ranks depart from uniform; `ranks` (M, Q).

    Columns: `p`, `is_calibrated`, `ks_p` (Kolmogorov-Smirnov, on ranks jittered uniformly with a fixed seed),
    `below_05` and `above_95` (share of the ranks), `mean` (expected 0.5), `farthest_at` and `farthest` (the largest
    difference of the ECDF), `how` (in words; empty if calibrated).
    """
    rows = []
    for name, each in zip(names, ranks.T, strict=True):
        difference = differences(each, num_draws=num_draws)
        farthest = int(np.argmax(np.abs(difference)))
        spread = (each + np.random.default_rng(0).random(len(each))) / (num_draws + 1)
        p = p_value(each, num_draws=num_draws)
        is_calibrated = p > LEVEL / len(names)
        rows.append(
            {
                "quantity": name,
                "p": p,
                "is_calibrated": is_calibrated,
                "ks_p": float(kstest(spread, "uniform").pvalue),
                "below_05": float(np.mean(spread < TAIL)),
                "above_95": float(np.mean(spread > 1 - TAIL)),
                "mean": float(np.mean((each + 0.5) / (num_draws + 1))),
                "farthest_at": farthest / (num_draws + 1),
                "farthest": float(difference[farthest]),
                "how": "" if is_calibrated else departure(spread),
            }
        )
    return pd.DataFrame(rows).set_index("quantity")


def departure(places: np.ndarray) -> str:
    """How normalised ranks of the truth in 0..1, (M,), depart from uniform, in words."""
    size = len(places)
    low, high, mean = np.mean(places < TAIL), np.mean(places > 1 - TAIL), np.mean(places)
    error = np.sqrt(TAIL * (1 - TAIL) / size)
    z_low, z_high, z_mean = (low - TAIL) / error, (high - TAIL) / error, (mean - 0.5) / np.sqrt(1 / 12 / size)
    told_low, told_high = f"{low:.1%} of ranks below .05", f"{high:.1%} above .95"
    farthest = max(abs(z_low), abs(z_high))
    if min(z_low, z_high) > NOTICED:
        return f"intervals are too narrow: {told_low} and {told_high}"
    if max(z_low, z_high) < -NOTICED:
        return f"intervals are too wide: {told_low} and {told_high}"
    if farthest > max(NOTICED, abs(z_mean)) and abs(z_low) == farthest:
        return f"small values {'are missed' if z_low > 0 else 'come too often'}: {told_low}"
    if farthest > max(NOTICED, abs(z_mean)):
        return f"large values {'are missed' if z_high > 0 else 'come too often'}: {high:.1%} of ranks above .95"
    if abs(z_mean) > NOTICED:
        return f"draws are too {'large' if z_mean < 0 else 'small'}: the mean rank is {mean:.3f}, expected 0.5"
    return f"the middle is not uniform: mean rank {mean:.3f}, {told_low} and {told_high}"


@functools.lru_cache(maxsize=4)
def _tails(num_simulations: int, num_draws: int) -> np.ndarray:
    """Two-sided tail probability of X_k = x for k = 1..L and x = 0..M, (L, M + 1)."""
    x, share = np.arange(num_simulations + 1), np.arange(1, num_draws + 1)[:, None] / (num_draws + 1)
    law = binom(num_simulations, share)
    return np.minimum(1.0, 2.0 * np.minimum(law.cdf(x), law.sf(x - 1)))


def _coverage(num_simulations: int, num_draws: int, tail: float) -> float:
    """Probability under uniform ranks that every X_k has a tail probability above `tail`."""
    inside = _tails(num_simulations, num_draws) > tail
    if not np.all(np.any(inside, axis=1)):
        return 0.0
    log_factorial = gammaln(np.arange(num_simulations + 1) + 1.0)
    reached, probability = np.zeros(1, int), np.ones(1)
    for k in range(1, num_draws + 1):
        following = np.flatnonzero(inside[k - 1])
        left, more = num_simulations - reached[:, None], following - reached[:, None]
        rest, chance = left - more, 1.0 / (num_draws + 2 - k)
        log_choose = log_factorial[left] - log_factorial[np.maximum(more, 0)] - log_factorial[rest]
        log_step = log_choose + more * np.log(chance) + rest * np.log1p(-chance)
        probability = probability @ np.where(more >= 0, np.exp(log_step), 0.0)
        reached = following
    return float(probability.sum())
