"""Rows that share a rate: their likelihood integrated over any law of the rate, against SciPy's integrals."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from poolwise.counts.statistics import filled_up
from poolwise.model.likelihoods import LIKELIHOODS
from poolwise.model.likelihoods.base import Likelihood
from poolwise.model.likelihoods.poisson import POISSON, Poisson
from poolwise.model.marginal_quadrature import RateIntegral, Rows, _power_of_two
from poolwise.model.poolings.base import RateLaw
from poolwise.model.priors import FAMILIES, families_for, law, prior_values
from poolwise.model.sites import Support
from support import PRIORS, model_of

pytestmark = pytest.mark.fit

VALUES = {
    "Exponential": {"rate": 0.2},
    "Gamma": {"concentration": 2.0, "rate": 0.2},
    "HalfCauchy": {"scale": 5.0},
    "HalfNormal": {"scale": 9.0},
    "InverseGamma": {"concentration": 3.0, "rate": 12.0},
    "LogNormal": {"loc": 2.0, "scale": 0.7},
    "Uniform": {"low": 2.0, "high": 9.0},
    "Weibull": {"scale": 8.0, "concentration": 1.5},
}
FEW = Rows((0.5, 1.0, 1.0), (4, 0, 9), (2, 1, 1))  # four rows: exposure, count, multiplicity


class BySum(Poisson):
    """The Poisson without its closed form: the same statistics, the rate integrated by the sum."""

    has_marginal = False


class ByCell(Likelihood):
    """The Poisson as a likelihood that gives nothing but its distribution."""

    distribution = Poisson.distribution


def by_scipy(rows, prior, phi=None):
    """Log int p(rows | lam) p(lam) dlam."""

    def density(lam):
        rate = lam * np.array(rows.exposure)
        pmf = stats.poisson(rate) if phi is None else stats.nbinom(phi, phi / (phi + rate))
        return prior.pdf(lam) * np.prod(pmf.pmf(rows.count) ** rows.multiplicity)

    low, high = prior.support()
    return np.log(integrate.quad(density, low, min(high, 200.0), points=[2.0, 5.0, 9.0, 20.0], epsabs=0, limit=400)[0])


def test_every_prior_of_a_rate_has_values():
    assert list(VALUES) == families_for(Support.POSITIVE)
    assert all(values.keys() == set(FAMILIES[family].parameters) for family, values in VALUES.items())


@pytest.mark.parametrize("phi", [None, 4.0], ids=["poisson", "negative binomial"])
@pytest.mark.parametrize("family", VALUES)
def test_marginal_of_any_prior_is_scipys(family, phi):
    model = model_of(
        "unpooled",
        "poisson" if phi is None else "negative_binomial",
        PRIORS | {"lam": {"name": family, **VALUES[family]}},
    )
    priors = {"lam": VALUES[family], "delta": PRIORS["delta"]}
    values = prior_values(priors, sites=tuple(site for site, _ in model.families))
    concentrations = np.array([[phi or np.nan, 1e30]])
    draws = {} if phi is None else {"delta": concentrations**-0.5, "phi": concentrations}
    found = np.ravel(RateIntegral.of(model, values, draws).log_marginal(FEW))
    prior = law(family, VALUES[family])
    assert found[0] == pytest.approx(by_scipy(FEW, prior, phi), abs=1e-6)
    if phi is not None:  # an infinite concentration is the Poisson
        assert found[1] == pytest.approx(by_scipy(FEW, prior), abs=1e-6)


def test_marginal_of_a_hierarchy_is_scipys():
    model = model_of("hierarchical", "negative_binomial")
    draws = {"mu": 6.0, "alpha": 2.5, "delta": 0.5, "phi": 4.0}
    integral = RateIntegral.of(model, {}, {name: np.array([[value]]) for name, value in draws.items()})
    prior = stats.gamma(2.5, scale=6.0 / 2.5)
    assert integral.log_marginal(FEW)[0, 0] == pytest.approx(by_scipy(FEW, prior, 4.0), abs=1e-6)


@pytest.mark.parametrize(
    ("family", "name"),
    [
        *(
            pytest.param("Gamma", each.name, marks=pytest.mark.slow if each.cost > 10 else ())
            for each in LIKELIHOODS.values()
        ),
        *((family, "poisson") for family in ("LogNormal", "Uniform")),
    ],
)  # the integrand is a product: a factor of the family, and one of the likelihood
def test_rates_given_rows_predict_a_count_as_ratios_of_marginals_do(family, name):
    # P(Y < 6 | rows) = sum over k < 6 of F(rows and k) / F(rows), which uses no law of the rate
    priors = PRIORS | {"lam": {"name": family, **VALUES[family]}}
    model = model_of("unpooled", name, priors)
    values = prior_values(priors, sites=tuple(site for site, _ in model.families))
    place = (np.arange(4000.0)[None] + 0.5) / 4000
    params = {"delta": 0.5, "phi": 4.0, "zi": 0.3, "hurdle": 0.3, "xi": -0.2}
    draws = {site: np.full_like(place, params[site]) for site in RateIntegral.sites(model, values)}
    integral = RateIntegral.of(model, values, draws)
    found = integral.likelihood.below(np.array(6.0), 0.5 * integral.rates(FEW, place), draws).mean()
    at_one = replace(integral, drawn={site: value[:, :1] for site, value in integral.drawn.items()})
    assert found == pytest.approx(np.exp([log_share(at_one, k) for k in range(6)]).sum(), abs=2e-4)


def log_share(integral, count):
    """Log of F(FEW and a row of this count at exposure 0.5) / F(FEW), at one draw."""
    columns = (FEW.exposure, FEW.count, FEW.multiplicity)
    more = Rows(*((*column, new) for column, new in zip(columns, (0.5, count, 1), strict=True))).counts()
    more = Rows.of(more, np.arange(more.num_cells))
    return (integral.log_marginal(more) - integral.log_marginal(FEW)).ravel()[0]


def test_rates_given_no_row_have_their_prior():
    lam = RateLaw("Gamma", {"shape": np.asarray(0.3), "mu": np.asarray(1.5)})
    none = Rows((1.0,), (7,), (1,)).plus(0, -1)
    place = (np.arange(4000.0) + 0.5) / 4000
    rates = RateIntegral(POISSON, lam, {}).rates(none, place)
    assert np.all(np.diff(rates) >= 0)
    expected = stats.gamma(0.3, scale=5.0)
    assert [np.mean(rates <= x) for x in (0.1, 1.0, 9.0)] == pytest.approx(expected.cdf([0.1, 1.0, 9.0]), abs=0.03)


def test_sites_are_those_that_the_integral_takes():
    values = prior_values(PRIORS, sites=("lam",))
    assert RateIntegral.sites(model_of("unpooled", "poisson"), values) == ()  # so that its value is exact
    assert RateIntegral.sites(model_of("hierarchical", "negative_binomial"), {}) == ("mu", "alpha", "delta", "phi")


@pytest.mark.parametrize("likelihood", [BySum(), ByCell()], ids=["by sum", "by cell"])
@pytest.mark.parametrize("shape", [0.05, 2.0, 1e4])
@pytest.mark.parametrize("total", [0, 3, 10**6])
def test_quadrature_keeps_to_the_closed_form_far_out(total, shape, likelihood):
    gamma = RateLaw("Gamma", {"shape": np.asarray(shape), "mu": np.asarray(shape / 0.2)})
    found = RateIntegral(likelihood, gamma, {}).log_marginal(Rows((1.0,), (total,), (1,)))
    exact = stats.nbinom.logpmf(total, shape, 0.2 / 1.2)
    assert float(found) == pytest.approx(exact, abs=1e-6, rel=1e-9)


def test_rows_left_out_entirely_have_probability_one():
    lam = RateLaw("Gamma", {"shape": np.asarray(2.0), "mu": np.asarray(10.0)})
    assert float(RateIntegral(POISSON, lam, {}).log_marginal(Rows((1.0,), (7,), (1,)).plus(0, -1))) == 0.0


def test_statistics_that_are_filled_up_say_the_same():
    counts = Rows((0.5, 1.0, 2.0), (4, 0, 9), (2, 1, 1)).counts()
    filled = filled_up(POISSON.statistics.of(counts), to=_power_of_two)
    assert {name: value.shape for name, value in filled.items() if value.shape} == {
        **dict.fromkeys(("group_total", "group_exposure"), (1,)),
        **dict.fromkeys(("stratum_group", "stratum_exposure", "stratum_rows", "stratum_total"), (4,)),
        **dict.fromkeys(("value", "value_rows"), (4,)),
    }
    assert (filled["stratum_rows"][3], filled["value_rows"][3], filled["stratum_exposure"][3]) == (0, 0, 1)
    for likelihood, params in ((POISSON, {}), (ByCell(), {}), (LIKELIHOODS["negative_binomial"], {"phi": 4.0})):
        statistics = likelihood.statistics.of(counts)
        both = (statistics, filled_up(statistics, to=_power_of_two))
        one, other = (float(likelihood.log_likelihood(each, jnp.array([3.0]), params)) for each in both)
        assert one == pytest.approx(other, rel=1e-14)
