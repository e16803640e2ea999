"""K differences in Monte Carlo errors to the largest that chance explains.

Of two runs, or of a fit and the exact answer: |z| <= max(4, Phi^-1(1 - 0.0005 / K)). What differs by nothing but Monte
Carlo error is called different in at most one of a thousand comparisons (Bonferroni; normal errors).
"""

from scipy.stats import norm

LEAST_THRESHOLD, TAIL = 4.0, 0.0005


def threshold(num_quantities: int) -> float:
    """The largest |z| of so many quantities that Monte Carlo error explains."""
    return max(LEAST_THRESHOLD, float(norm.isf(TAIL / num_quantities)))
