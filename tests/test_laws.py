"""SciPy's laws against NumPyro's distributions of the registry."""

import numpy as np
import pytest
from poolwise.model.priors import LAWS, law
from poolwise.model.priors import FAMILIES, distribution

VALUES = {
    "Exponential": {"rate": 0.7},
    "Gamma": {"concentration": 2.0, "rate": 0.7},
    "HalfCauchy": {"scale": 0.7},
    "HalfNormal": {"scale": 0.7},
    "InverseGamma": {"concentration": 2.0, "rate": 0.7},
    "LogNormal": {"loc": -0.5, "scale": 0.7},
    "Uniform": {"low": 0.2, "high": 0.9},
    "Weibull": {"scale": 0.7, "concentration": 1.5},
}


def test_every_family_has_a_law():
    assert list(LAWS) == list(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_law_is_that_of_the_registry(family):
    x, expected = np.array([0.3, 0.6, 0.8]), distribution(family, VALUES[family])
    found = law(family, VALUES[family])
    np.testing.assert_allclose(found.logpdf(x), expected.log_prob(x), rtol=1e-12)
    np.testing.assert_allclose(found.cdf(x), expected.cdf(x), rtol=1e-9)
