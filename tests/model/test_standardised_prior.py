"""A prior moved in a standardised coordinate: the same prior in every family, and where the coordinate stands."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro.distributions import biject_to
from numpyro.infer.util import potential_energy
from scipy import stats

from poolwise.model.priors import FAMILIES, distribution, families_for, law
from poolwise.model.sites import Support
from poolwise.model.standardised_prior import StandardisedPrior

VALUES = {"rate": 0.2, "concentration": 2.5, "scale": 1.5, "loc": 0.3, "low": 0.5, "high": 4.0}
POSITIVE = families_for(Support.POSITIVE)


def prior_of(family):
    given = {name: jnp.asarray(VALUES[name]) for name in FAMILIES[family].parameters}
    return distribution(family, given), law(family, given)


@pytest.mark.parametrize("near", [1.7, 90.0])  # 90: outside the bounded support
@pytest.mark.parametrize("family", POSITIVE)
def test_coordinate_has_the_distribution_of_the_prior(family, near):
    # the scale depends on a parameter sampled before, as the engine has it
    prior, expected = prior_of(family)

    def model():
        scatter = numpyro.sample("scatter", numpyro.distributions.HalfNormal(1.0))
        numpyro.sample("x", StandardisedPrior(prior, jnp.asarray(near), 40.0 / (1.0 + scatter)))

    def log_density(coordinate, scatter):
        return -potential_energy(model, (), {}, {"x": coordinate, "scatter": scatter})

    support = StandardisedPrior(prior, jnp.asarray(near), 40.0 / (1.0 + jnp.exp(0.4))).support
    low, high = (float(biject_to(support).inv(jnp.asarray(expected.ppf(p)))) for p in (0.01, 0.8))
    coordinate = jnp.linspace(low, high, 4001)
    density = np.exp(jax.vmap(lambda each: log_density(each, 0.4))(coordinate))
    of_scatter = stats.halfnorm.pdf(np.exp(0.4)) * np.exp(0.4)
    assert np.trapezoid(density, coordinate) == pytest.approx(0.79 * of_scatter, rel=1e-5)


@pytest.mark.parametrize("family", POSITIVE)
def test_draws_and_density_are_those_of_the_prior(family):
    prior, expected = prior_of(family)
    found = StandardisedPrior(prior, jnp.asarray(1.7), jnp.asarray(40.0))
    assert np.array_equal(found.sample(jax.random.key(0), (5,)), prior.sample(jax.random.key(0), (5,)))
    assert found.log_prob(jnp.asarray(2.2)) == pytest.approx(expected.logpdf(2.2))


def test_coordinate_is_in_standard_deviations_of_the_logarithm():
    to_value = biject_to(StandardisedPrior(prior_of("Gamma")[0], jnp.asarray(1.7), jnp.asarray(399.0)).support)
    assert np.log(to_value(jnp.array([0.0, 1.0, -2.0])) / 1.7) == pytest.approx([0.0, 0.05, -0.1])


def test_between_bounds_one_step_is_as_far_on_the_logarithm():
    to_value = biject_to(StandardisedPrior(prior_of("Uniform")[0], jnp.asarray(1.7), jnp.asarray(1e8)).support)
    assert np.log(to_value(jnp.array([0.0, 1.0])) / 1.7) == pytest.approx([0.0, 1e-4], abs=1e-8)


def test_outside_the_support_the_middle_stands_for_what_the_data_show():
    prior = StandardisedPrior(prior_of("Uniform")[0], jnp.asarray(90.0), jnp.asarray(40.0))
    assert float(biject_to(prior.support)(jnp.asarray(0.0))) == pytest.approx(2.25)
    assert 0.01 < float(prior.scale) < 1
