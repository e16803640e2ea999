"""Draws and an exact posterior to a verdict: a sampler whose answer is wrong is not timed."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from arviz_stats.base import array_stats

from support import by_parameter, moment_errors

LIMITS = {"mean": 4.0, "sd": 6.0}  # Monte Carlo standard errors; that of a standard deviation is itself rough


def refusal(draws: Mapping[str, np.ndarray], exact: Any) -> str:
    """Why these draws are not timed: the first mean or standard deviation beyond the limit; empty if there is none.

    Parameters
    ----------
    draws : site -> (chain, draw, ...)
    exact : an `exact_reference.ExactPosterior`
    """
    missing = [site for site in exact.mean if site not in draws]
    if missing:
        return f"wrong answer: no draws of {', '.join(missing)}"
    if not all(np.isfinite(draws[site]).all() for site in exact.mean):
        return "wrong answer: draws that are not finite"
    for what, errors in moment_errors(draws, exact).items():
        worst, limit = np.abs(errors).max(), LIMITS[what.split()[0]]
        if not worst < limit:
            return f"wrong answer: {what} is {worst:.1f} Monte Carlo errors from the exact one (limit {limit:g})"
    return ""


def least_effective(draws: Mapping[str, np.ndarray], exact: Any) -> float:
    """The smallest bulk ESS over all parameters: each rate, mu, sigma and, if the model has it, delta."""
    return min(float(array_stats.ess(by_parameter(draws[site]), method="bulk").min()) for site in exact.mean)
