"""Likelihoods that change the probability of 0 of a base likelihood by a parameter of its own; see its two kinds."""

import jax
from jax.typing import ArrayLike

from poolwise.model.likelihoods.base import Likelihood, Params, of_positive, short_of
from poolwise.model.priors import Arrays
from poolwise.model.sites import Feature


class ZerosApart(Likelihood):
    """A kind states its own `name`, `short`, `sites`, `meaning` and `formula`; those of the base are added here."""

    def __init__(self, base: Likelihood):
        kind = type(self)
        self.base, self.made_of = base, (base,)
        self.name, self.short = f"{kind.name}_{base.name}", f"{kind.short}{short_of(base)}"
        self.overdispersion, self.without_mean = base.overdispersion, base.without_mean
        self.cost = 5 * (1 + len(base.sites))
        self.sites = (*kind.sites, *base.sites)
        self.meaning = f"{kind.meaning} {base.meaning}"
        self.formula = base.formula_within(kind.formula)
        self.describes = (Feature.EXCESS_ZEROS, *base.describes)

    def derived(self, params: Params) -> dict[str, jax.Array]:
        """Those of the base."""
        return self.base.derived(params)

    def at(self, params: Params, exposure: ArrayLike) -> Params:
        """Those of the base at an exposure, and its own."""
        return self.base.at(params, exposure)

    def showing_rates(self, statistics: Arrays) -> Arrays:
        """Of the rows with an event: other rows may show no rate."""
        return of_positive(statistics)
