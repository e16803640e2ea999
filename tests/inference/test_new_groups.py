"""Several new groups at once: the total and the extremes of one count of each, against exact distributions."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from poolwise.inference.new_groups import new_groups
from poolwise.model.priors import prior_values
from support import PRIORS, model_of

SIZE = 20_000


def predicted(pooling, posterior, *, number=10, exposure=1.0):
    model = model_of(pooling, "poisson")
    sites = [site for site, _ in model.families]
    values = prior_values(PRIORS, sites=sites)
    return new_groups(model, posterior, values, exposure=exposure, seed=0, number=number)


def posterior_of(**sites):
    return xr.Dataset({name: (("chain", "draw"), np.full((4, SIZE // 4), value)) for name, value in sites.items()})


def test_extremes_of_a_known_population_are_those_of_independent_negative_binomials():
    # mu = 9, sigma = 3: a count of a new group is negative binomial with shape 9 and p = 1 / (1 + 1)
    found = predicted("hierarchical", posterior_of(mu=9.0, sigma=3.0, alpha=9.0, beta=1.0, lam=9.0))
    law = stats.nbinom(9.0, 0.5)
    for q, share in (("quantile_5%", 0.05), ("quantile_95%", 0.95)):
        assert law.cdf(found.table.loc["largest", q] - 1) ** 10 < share + 0.01
        assert law.cdf(found.table.loc["largest", q]) ** 10 > share - 0.01
        assert 1 - law.sf(found.table.loc["smallest", q] - 1) ** 10 < share + 0.01
        assert 1 - law.sf(found.table.loc["smallest", q]) ** 10 > share - 0.01
    total = stats.nbinom(90.0, 0.5)  # a sum of ten
    assert found.table.loc["total"].tolist() == pytest.approx(total.ppf([0.05, 0.5, 0.95]), abs=1.0)


def test_groups_of_a_pooled_model_share_the_rate_of_a_draw():
    # lam ~ Gamma(4, 1): given lam the total of ten is Poisson(10 lam), hence negative binomial
    lam = np.random.default_rng(1).gamma(4.0, 1.0, (4, SIZE // 4))
    found = predicted("pooled", xr.Dataset({"lam": (("chain", "draw"), lam)}))
    law = stats.nbinom(4.0, 1 / 11)
    assert law.cdf(found.table.loc["total"]) == pytest.approx([0.05, 0.5, 0.95], abs=0.02)


def test_exposure_scales_the_counts():
    found = predicted(
        "hierarchical", posterior_of(mu=9.0, sigma=1e-6, alpha=8.1e13, beta=9e12, lam=9.0), exposure=100.0
    )
    assert found.table.loc["total", "quantile_50%"] == pytest.approx(9000, rel=0.01)
