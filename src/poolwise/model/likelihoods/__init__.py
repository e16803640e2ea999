"""The likelihoods. To add one: a file with an instance, its line here, `conf/likelihood/<name>.yaml`."""

from poolwise.model.likelihoods.base import Likelihood
from poolwise.model.likelihoods.negative_binomial import NEGATIVE_BINOMIAL
from poolwise.model.likelihoods.poisson import POISSON
from poolwise.model.likelihoods.zero_inflated_poisson import ZERO_INFLATED_POISSON

LIKELIHOODS: dict[str, Likelihood] = {each.name: each for each in (POISSON, NEGATIVE_BINOMIAL, ZERO_INFLATED_POISSON)}
