"""Prior settings to distributions: every registered family, every impossible value, and the arrays that are sampled."""

import jax
import numpy as np
import pytest
import scipy.stats
from numpyro.distributions import constraints

from poolwise.model.count_model import SITES
from poolwise.model.priors import FAMILIES, distribution, families_for, faults_of, law, prior_values
from poolwise.model.sites import Site, Support
from support import PRIORS

VALUES = {  # possible values of every family, none of them 0 or 1, no two equal
    "Exponential": {"rate": 2.0},
    "Gamma": {"concentration": 2.0, "rate": 0.2},
    "HalfCauchy": {"scale": 2.0},
    "HalfNormal": {"scale": 2.0},
    "InverseGamma": {"concentration": 3.0, "rate": 2.0},
    "LogNormal": {"loc": -1.5, "scale": 0.5},
    "Normal": {"loc": -0.3, "scale": 1.2},
    "Uniform": {"low": 0.5, "high": 4.0},
    "Weibull": {"scale": 2.0, "concentration": 1.5},
    "Beta": {"concentration1": 1.5, "concentration0": 4.0},
    "TruncatedNormal": {"loc": 0.2, "scale": 0.3, "low": -0.9, "high": 0.95},
}
SCIPY = {  # the same distributions by SciPy, whose parameters are named otherwise
    "Exponential": scipy.stats.expon(scale=1 / 2.0),
    "Gamma": scipy.stats.gamma(2.0, scale=1 / 0.2),
    "HalfCauchy": scipy.stats.halfcauchy(scale=2.0),
    "HalfNormal": scipy.stats.halfnorm(scale=2.0),
    "InverseGamma": scipy.stats.invgamma(3.0, scale=2.0),
    "LogNormal": scipy.stats.lognorm(0.5, scale=np.exp(-1.5)),
    "Normal": scipy.stats.norm(-0.3, 1.2),
    "Uniform": scipy.stats.uniform(0.5, 4.0 - 0.5),
    "Weibull": scipy.stats.weibull_min(1.5, scale=2.0),
    "Beta": scipy.stats.beta(1.5, 4.0),
    "TruncatedNormal": scipy.stats.truncnorm(-1.1 / 0.3, 0.75 / 0.3, 0.2, 0.3),
}
PARAMETERS = [(family, key) for family in FAMILIES for key in FAMILIES[family].parameters]
IMPOSSIBLE = [  # 0 is possible for a bound, any number for a location
    (family, key, value)
    for family, key in PARAMETERS
    for value in (-1.0, 0.0)
    if key not in ("low", "high", "loc") or (family, key, value) == ("Uniform", "low", -1.0)
]


SIGMA, ZI = SITES["sigma"], Site("zi", "ζ", "a share", Support.UNIT)
LOWEST = {Support.POSITIVE: 0.0, Support.UNIT: 0.0, Support.SIGNED_UNIT: -1.0, Support.REAL: -np.inf}
XI = Site("xi", "ξ", "a dispersion", Support.SIGNED_UNIT)


def site_for(family: str) -> Site:
    """A site that takes this family."""
    return next(site for site in (SIGMA, ZI, XI, SITES["beta"]) if site.support in FAMILIES[family].supports)


def setting(family: str, **changes: object) -> dict:
    return {"name": family} | VALUES[family] | changes


def test_every_registered_family_is_tested():
    assert FAMILIES.keys() == VALUES.keys() == SCIPY.keys()


@pytest.mark.parametrize("family", FAMILIES)
def test_family_draws_are_in_the_supports_of_its_sites(family):
    draws = distribution(family, VALUES[family]).sample(jax.random.key(0), (1000,))
    assert draws.min() > LOWEST[site_for(family).support] and len(np.unique(draws)) > 900


@pytest.mark.parametrize("family", FAMILIES)
def test_family_has_no_mass_below_the_supports_of_its_sites(family):
    support = distribution(family, VALUES[family]).support
    if support is constraints.real:
        assert site_for(family).support is Support.REAL
        return
    lowest = support.lower_bound if support is not constraints.positive else 0.0
    assert lowest >= LOWEST[site_for(family).support]


@pytest.mark.parametrize("family", FAMILIES)
def test_family_is_the_distribution_that_scipy_knows_by_its_parameters(family):
    x = np.array([0.6, 0.7, 0.9])  # inside the support of all
    for route in (distribution(family, VALUES[family]).log_prob, law(family, VALUES[family]).logpdf):
        np.testing.assert_allclose(route(x), SCIPY[family].logpdf(x), rtol=1e-12)
    np.testing.assert_allclose(law(family, VALUES[family]).cdf(x), SCIPY[family].cdf(x), rtol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_possible_values_have_no_fault(family):
    assert faults_of(site_for(family), setting(family)) == []


@pytest.mark.parametrize(
    ("family", "key", "value"),
    [("Uniform", "low", 0.0), ("Uniform", "low", 0), ("LogNormal", "loc", 0.0), ("LogNormal", "loc", -3)],
)
def test_a_bound_of_zero_and_any_location_are_possible(family, key, value):
    assert faults_of(site_for(family), setting(family, **{key: value})) == []


@pytest.mark.parametrize(("family", "key", "value"), IMPOSSIBLE)
def test_an_impossible_value_is_refused(family, key, value):
    rule = "sigma is positive, so it must be >= 0" if family == "Uniform" else "it must be > 0"
    site = site_for(family)
    assert faults_of(site, setting(family, **{key: value})) == [f"prior.{site.name}.{key} is {value}; {rule}."]


@pytest.mark.parametrize(("family", "key"), PARAMETERS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), None, "2", True, [2.0]], ids=str)
def test_a_value_that_is_no_finite_number_is_refused(family, key, value):
    expected = [f"prior.{site_for(family).name}.{key} is {value}; it must be a finite number."]
    assert faults_of(site_for(family), setting(family, **{key: value})) == expected


def test_a_whole_number_too_large_for_a_float_is_refused():
    (fault,) = faults_of(SIGMA, setting("Exponential", rate=10**400))
    assert fault.endswith("; it must be a finite number.")


@pytest.mark.parametrize("high", [0.5, 0.25])
def test_a_uniform_without_width_is_refused(high):
    expected = [f"prior.sigma.low is 0.5, not below prior.sigma.high = {high}."]
    assert faults_of(SIGMA, setting("Uniform", high=high)) == expected


@pytest.mark.parametrize(("family", "key"), PARAMETERS)
def test_a_missing_parameter_is_named(family, key):
    prior = {name: value for name, value in setting(family).items() if name != key}
    site = site_for(family)
    assert faults_of(site, prior) == [f"prior.{site.name}.{key} is missing; {family} needs it."]


@pytest.mark.parametrize(
    ("key", "hint"), [("scael", "; did you mean scale?"), ("df", " (it has loc, scale)")], ids=["near", "far"]
)
def test_an_unknown_parameter_is_named_with_the_nearest(key, hint):
    expected = [f"prior.lam.{key} is not a parameter of LogNormal{hint}."]
    assert faults_of(SITES["lam"], setting("LogNormal", **{key: 1.0})) == expected


@pytest.mark.parametrize("name", ["Normal", "Cauchy", "gamma", "numpyro.distributions.Gamma", "", None, 3])
def test_a_family_that_is_not_registered_is_refused_with_all_that_are(name):
    (fault,) = faults_of(SITES["delta"], {"name": name, "scale": 1.0})
    assert fault == (
        f"prior.delta.name is {name}; delta is positive and accepts one of "
        f"{', '.join(families_for(Support.POSITIVE))}. Choose one of them, e.g. with prior/delta=<choice>."
    )


@pytest.mark.parametrize("prior", [None, {}])
def test_a_prior_that_is_not_there_is_refused(prior):
    (fault,) = faults_of(SITES["mu"], prior)
    assert fault.startswith("prior.mu") and "prior/mu=<choice>" in fault


def test_all_faults_of_the_values_are_told():
    faults = faults_of(SITES["mu"], setting("Gamma", concentration=-2, rate=float("nan")))
    assert [fault.split(" ")[0] for fault in faults] == ["prior.mu.concentration", "prior.mu.rate"]


def test_prior_values_are_float_arrays_of_the_asked_sites_in_their_order():
    values = prior_values(PRIORS | {"sigma": {"name": "Exponential", "rate": 1}}, sites=("sigma", "mu"))
    assert [
        (site, key, array.dtype.str, array.shape, array.item())
        for site in values
        for key, array in values[site].items()
    ] == [
        ("sigma", "rate", "<f8", (), 1.0),
        ("mu", "concentration", "<f8", (), 2.0),
        ("mu", "rate", "<f8", (), 0.2),
    ]


def test_prior_values_do_not_depend_on_the_order_of_the_keys():
    turned = {"mu": dict(reversed(PRIORS["mu"].items()))}
    assert list(prior_values(turned, sites=("mu",))["mu"]) == list(prior_values(PRIORS, sites=("mu",))["mu"])


def test_a_distribution_takes_traced_values():
    log_prob = jax.jit(lambda rate: distribution("Exponential", {"rate": rate}).log_prob(3.0))
    # log(2) - 2 * 3
    assert float(log_prob(2.0)) == pytest.approx(np.log(2) - 6, rel=1e-12)


@pytest.mark.parametrize(("low", "high", "fault"), [(0.1, 0.9, ""), (0.1, 1.5, "it must be <= 1"), (-0.1, 0.9, ">= 0")])
def test_bounds_of_a_share_lie_between_0_and_1(low, high, fault):
    found = faults_of(ZI, {"name": "Uniform", "low": low, "high": high})
    assert fault in " ".join(found) if fault else not found


def test_a_share_takes_no_family_that_goes_beyond_1():
    (fault,) = faults_of(ZI, setting("Gamma"))
    assert "zi is between 0 and 1 and accepts one of Uniform, Beta" in fault


@pytest.mark.parametrize("family", ["Uniform", "TruncatedNormal"])
@pytest.mark.parametrize(
    ("low", "high", "fault"),
    [(-0.9, 0.9, ""), (-1, 1, ""), (-0.5, 1.5, "it must be <= 1"), (-1.1, 0.9, "it must be >= -1")],
)
def test_bounds_of_a_dispersion_lie_between_minus_1_and_1(family, low, high, fault):
    others = {"loc": -2.5, "scale": 3.0} if family == "TruncatedNormal" else {}  # no bounds, so any number
    found = faults_of(XI, {"name": family, "low": low, "high": high, **others})
    assert f"xi is between -1 and 1, so {fault}" in " ".join(found) if fault else not found


def test_a_dispersion_takes_the_families_with_two_bounds():
    assert families_for(Support.SIGNED_UNIT) == ["Uniform", "TruncatedNormal"]
