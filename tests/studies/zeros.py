"""Zero inflation, a hurdle and overdispersion on simulated tables: which of them a comparison calls best.

    PYTHONPATH=tests python -m studies.zeros --tables 100

Six groups of 30 rows with rates of mean 4 and standard deviation 1.5 (Gamma); a quarter of zeros from zero inflation or
a hurdle, or delta = 0.7 of the negative binomial, or plain Poisson counts. Four models with independent rates are
fitted to every table by quadrature, so elpd_loo has no Monte Carlo error. A model wins if no other ties with it by the
rule of a comparison; a false winner is a model that wins over the true one.
"""

import argparse
from collections import Counter
from dataclasses import dataclass

import jax
import numpy as np
from scipy.special import logsumexp

from poolwise.comparison.differences import is_tie, standard_error
from poolwise.counts.cells import Counts, counts_from_rows
from poolwise.model.likelihoods import LIKELIHOODS
from poolwise.model.likelihoods.base import Likelihood
from poolwise.model.priors import law
from support import PRIORS

MODELS = ("poisson", "negative_binomial", "zero_inflated_poisson", "hurdle_poisson")
TRUE = {"delta": 0.7, "zi": 0.25, "hurdle": 0.25}
GROUPS, ROWS = 6, 30
QUANTILES = (np.arange(60) + 0.5) / 60  # of the prior of a parameter of the likelihood, midpoints
LOG_RATES = np.linspace(np.log(0.1), np.log(25.0), 161)


@dataclass(frozen=True)
class Outcome:
    """The model that wins, or nothing, and whether the true model is best or ties with the best."""

    winner: str
    has_true: bool


def simulated(truth: str, seed: int) -> Counts:
    """A table of one model."""
    rng, noise = np.random.default_rng([seed, MODELS.index(truth)]), LIKELIHOODS[truth]
    lam = rng.gamma((4 / 1.5) ** 2, 1.5**2 / 4, GROUPS)
    group = np.repeat(np.arange(GROUPS), ROWS)
    sites = {site.name: np.asarray(TRUE[site.name]) for site in noise.sites}
    params = sites | {name: np.asarray(each) for name, each in noise.derived(sites).items()}
    return counts_from_rows([f"g{g}" for g in group], noise.sample(lam[group], params, rng))


def cell_elpd(noise: Likelihood, counts: Counts) -> np.ndarray:
    """Log p(a row of each cell | all others), (C,), with an independent rate a group, by quadrature."""
    axes = [law(PRIORS[site.name]["name"], _values(site.name)).ppf(QUANTILES) for site in noise.sites]
    nodes = [np.ravel(each) for each in np.meshgrid(*axes, indexing="ij")] or [np.zeros(1)]
    sites = dict(zip([site.name for site in noise.sites], (each[:, None] for each in nodes), strict=False))
    params = sites | {name: np.asarray(each) for name, each in noise.derived(sites).items()}
    log_prob = jax.jit(noise.log_prob)
    values, which = np.unique(counts.cell_count, return_inverse=True)
    by_value = np.array([log_prob(float(y), np.exp(LOG_RATES), params) + 0 * nodes[0][:, None] for y in values])
    by_cell = by_value[which]  # (C, N, R)
    prior = law(PRIORS["lam"]["name"], _values("lam")).logpdf(np.exp(LOG_RATES)) + LOG_RATES
    joint = np.array(
        [
            prior + np.tensordot(counts.cell_multiplicity[is_of], by_cell[is_of], 1)
            for is_of in (counts.cell_group == g for g in range(counts.num_groups))
        ]
    )  # (G, N, R)
    factor = logsumexp(joint, axis=2)  # (G, N)
    rest = factor.sum(axis=0) - factor  # (G, N), of all other groups
    group = counts.cell_group
    without = logsumexp(rest[group][..., None] + joint[group] - by_cell, axis=(1, 2))
    return np.asarray(logsumexp(factor.sum(axis=0)) - without)


def _values(site: str) -> dict[str, float]:
    return {key: float(value) for key, value in PRIORS[site].items() if key != "name"}


def outcome(truth: str, seed: int) -> Outcome:
    """All models fitted to one table."""
    counts = simulated(truth, seed)
    weight, cells = counts.cell_multiplicity, {name: cell_elpd(LIKELIHOODS[name], counts) for name in MODELS}
    best = max(MODELS, key=lambda name: weight @ cells[name])
    tied = {
        name
        for name in MODELS
        if is_tie(weight @ (cells[best] - cells[name]), standard_error(cells[best], cells[name], weight))
    }
    return Outcome(best if tied == {best} else "", truth in tied)


def study(tables: int) -> dict[str, list[Outcome]]:
    """Outcomes by the true model."""
    return {truth: [outcome(truth, seed) for seed in range(tables)] for truth in MODELS}


def main() -> None:
    """Print the study."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=int, default=100)
    for truth, found in study(parser.parse_args().tables).items():
        winners = Counter(each.winner for each in found)
        told = ", ".join(f"{name} {winners[name]}" for name in MODELS)
        ties = sum(not each.winner for each in found)
        lost = sum(not each.has_true for each in found)
        print(f"{truth}: wins of {told}; no winner {ties}; the true model behind {lost}")


if __name__ == "__main__":
    main()
