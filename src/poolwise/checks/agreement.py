"""The largest |z| of K differences that Monte Carlo error explains.

For two runs, or a fit and the exact answer: |z| <= max(4, Phi^-1(1 - 0.0005 / K)). If only Monte Carlo error differs,
at most one in a thousand comparisons reports a difference (Bonferroni; normal errors).
"""

from scipy.stats import norm

LEAST_THRESHOLD, TAIL = 4.0, 0.0005


def threshold(num_quantities: int) -> float:
    """The largest |z| of this many quantities that Monte Carlo error explains."""
    return max(LEAST_THRESHOLD, float(norm.isf(TAIL / num_quantities)))
