"""Where chains start: half near the data, half in the bulk of the prior, so that separate modes are seen."""

import functools

import jax
import numpy as np
import pytest
from arviz_stats.base import array_stats
from numpyro.infer.util import constrain_fn
from test_nuts import SHORT

from poolwise.counts.cells import Counts, counts_from_rows
from poolwise.inference.starts import started
from poolwise.model.count_model import Model
from poolwise.model.poolings import POOLINGS
from poolwise.model.priors import law, prior_values
from support import PRIORS, fit_cookies, model_of

pytestmark = pytest.mark.fit

FAR = counts_from_rows(list("abcd"), [30, 40, 50, 40], np.full(4, 1e6))  # rates near 4e-5, where the priors say 10
EVERY = [  # each pooling, parameterisation and kind of likelihood at least once
    ("pooled", "negative_binomial", None),
    ("unpooled", "hurdle_negative_binomial", None),
    ("hierarchical", "poisson", "marginal"),
    ("hierarchical", "zero_inflated_poisson", "centred"),
    ("hierarchical", "generalised_poisson", "standardised"),
]


class Found:
    """In place of the kernel: the point that it would begin at."""

    @staticmethod
    def init(key, num_warmup, found, args, kwargs):
        return found


@functools.lru_cache
def searching(model: Model):
    """The compiled search for the starting point of a chain of this variant."""

    @jax.jit
    def search(key, chain, args):
        found = started(Found, model, key, chain, args, num_warmup=10)
        return constrain_fn(model.log_joint, args, {}, found.z, return_deterministic=True), found.potential_energy

    return search


def starts(pooling: str, likelihood: str, parameterisation: str | None, priors: dict = PRIORS, counts: Counts = FAR):
    """The constrained starting points of 100 chains, site -> (100, ...), and their potential energies."""
    model = model_of(pooling, likelihood, priors, parameterisation)
    args = (model.likelihood.statistics.of(counts), prior_values(priors, sites=tuple(dict(model.families))))
    found = [searching(model)(key, chain, args) for chain, key in enumerate(jax.random.split(jax.random.key(0), 100))]
    return jax.tree.map(lambda *each: np.stack(each), *found)


@pytest.mark.parametrize(("pooling", "likelihood", "parameterisation"), EVERY)
def test_chains_start_in_turn_near_the_data_and_in_the_bulk_of_the_prior(pooling, likelihood, parameterisation):
    found, energy = starts(pooling, likelihood, parameterisation)
    assert np.isfinite(energy).all()
    site = "mu" if POOLINGS[pooling].has_population else "lam"
    values = np.asarray(found[site]).reshape(100, -1)
    near = np.log(values[::2] / 4e-5)
    assert np.all(np.abs(near) < 2.5) and 0.3 < near.std() < 0.7  # a factor with sd 0.5 of its logarithm
    quantile = law("Gamma", {"concentration": 2.0, "rate": 0.2}).cdf(values[1::2])
    assert np.all((quantile > 0.005) & (quantile < 0.995))
    assert np.quantile(quantile, 0.1) < 0.3 and np.quantile(quantile, 0.9) > 0.7  # spread over it


def test_a_heavy_tail_is_no_place_to_start():
    # of HalfCauchy(2) one draw in 64 is above 80, of three draws the median in 1400
    heavy = PRIORS | {"sigma": {"name": "HalfCauchy", "scale": 2.0}}
    sigma = starts("hierarchical", "poisson", None, heavy)[0]["sigma"][1::2]
    assert sigma.max() < 80


def test_groups_without_a_difference_start_with_one():
    alike = counts_from_rows(list("ab"), [10, 10])
    sigma = starts("hierarchical", "poisson", None, counts=alike)[0]["sigma"][::2]
    assert np.all((sigma > 0.1) & (sigma < 10))


def test_groups_without_an_event_have_a_start():
    found, energy = starts("hierarchical", "poisson", None, counts=counts_from_rows(list("ab"), [0, 0]))
    assert np.isfinite(energy).all() and all(np.isfinite(each).all() for each in found.values())


def test_counts_that_are_not_possible_at_most_of_the_prior_have_a_start():
    # at a rate of the prior, near 10, and xi = -0.5 no count above 29 is possible; here each of 40 groups has one
    counts = counts_from_rows(range(40), np.arange(40) + 40)
    found, energy = starts("unpooled", "generalised_poisson", None, counts=counts)
    assert np.isfinite(energy).all()
    assert np.all(found["lam"] * (1 - found["xi"][:, None]) + found["xi"][:, None] * (np.arange(40) + 40) > 0)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_modes_far_apart_make_the_chains_disagree(seed):
    # 12 groups of about 5 events in 500 000: one mode near 1e-5, one near 0.5, where the prior is
    counts = counts_from_rows(range(12), [4] * 3 + [5] * 6 + [6] * 3, np.full(12, 5e5))
    mu = fit_cookies(counts, "hierarchical", "poisson", seed=seed, sampler=SHORT).posterior["mu"]
    assert array_stats.rhat(mu) > 1.2
