"""The likelihoods. To add one: a file with an instance, its line here, `conf/likelihood/<name>.yaml`."""

from poolwise.model.likelihoods.base import Likelihood
from poolwise.model.likelihoods.generalised_poisson import GENERALISED_POISSON
from poolwise.model.likelihoods.hurdle import Hurdle
from poolwise.model.likelihoods.negative_binomial import (
    NEGATIVE_BINOMIAL,
    NEGATIVE_BINOMIAL_BY_UNIT,
    NEGATIVE_BINOMIAL_PROPORTIONAL,
)
from poolwise.model.likelihoods.poisson import POISSON
from poolwise.model.likelihoods.zero_inflated import ZeroInflated

EVERY_LIKELIHOOD: tuple[Likelihood, ...] = (
    POISSON,
    NEGATIVE_BINOMIAL,
    NEGATIVE_BINOMIAL_BY_UNIT,
    NEGATIVE_BINOMIAL_PROPORTIONAL,
    ZeroInflated(POISSON),
    ZeroInflated(NEGATIVE_BINOMIAL),
    ZeroInflated(NEGATIVE_BINOMIAL_BY_UNIT),
    ZeroInflated(NEGATIVE_BINOMIAL_PROPORTIONAL),
    Hurdle(POISSON),
    Hurdle(NEGATIVE_BINOMIAL),
    Hurdle(NEGATIVE_BINOMIAL_BY_UNIT),
    Hurdle(NEGATIVE_BINOMIAL_PROPORTIONAL),
    GENERALISED_POISSON,
)  # of those with one name and several choices of `overdispersion`, the default first
LIKELIHOODS: dict[str, Likelihood] = {}
for _each in EVERY_LIKELIHOOD:
    LIKELIHOODS.setdefault(_each.name, _each)


def overdispersions(name: str) -> list[str]:
    """The choices of `likelihood.overdispersion` of a likelihood, the default first; empty if there is none."""
    return [each.overdispersion for each in EVERY_LIKELIHOOD if each.name == name and each.overdispersion is not None]


def likelihood_of(name: str, overdispersion: str | None = None) -> Likelihood:
    """The likelihood with this name and choice; None is its default."""
    chosen = (each for each in EVERY_LIKELIHOOD if each.name == name and each.overdispersion == overdispersion)
    return LIKELIHOODS[name] if overdispersion is None else next(chosen)
