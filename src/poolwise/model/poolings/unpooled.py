"""No pooling: every group has its own rate."""

import jax
import numpy as np
import numpyro

from poolwise.model.poolings.base import Draws, Families, NewGroupWords, Pooling
from poolwise.model.priors import Priors, PriorValues, law
from poolwise.model.sites import Feature, Site


class Unpooled(Pooling):
    """lam[g] ~ prior, independently."""

    name, short = "unpooled", "unpooled"
    sites = (Site("lam", "λ<sub>g</sub>", "the rate of group g, independently for every group"),)
    meaning = "No pooling: every group has its own rate, independent of the others."
    informs_new_group = False
    describes = (Feature.DIFFERENT_GROUPS,)
    new_group_words = NewGroupWords(
        title="A new group: the data do not inform it, this is only the prior",
        how_to_read="Only the prior is shown: in this model the groups are independent, so the data "
        "do not inform a new one.",
        source="from the prior alone: unpooled groups do not inform a new one",
    )

    def rates(self, prior: Priors, num_groups: int) -> jax.Array:
        """One rate per group."""
        with numpyro.plate("group", num_groups):
            return numpyro.sample("lam", prior["lam"])

    def new_rates(self, draws: Draws, families: Families, values: PriorValues, rng: np.random.Generator) -> np.ndarray:
        """Draws from the prior."""
        return np.asarray(law(families["lam"], values["lam"]).rvs(len(draws["lam"]), random_state=rng))


UNPOOLED = Unpooled()
