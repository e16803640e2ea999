"""No pooling: every group has a rate of its own."""

import jax
import numpy as np
import numpyro

from poolwise.model.poolings.base import Draws, Families, NewGroupWords, Pooling
from poolwise.model.priors import Priors, PriorValues, law
from poolwise.model.sites import Site


class Unpooled(Pooling):
    """lam[g] ~ prior, independently."""

    name, short = "unpooled", "unpooled"
    sites = (Site("lam", "λ<sub>g</sub>", "the rate of group g, independently for every group"),)
    meaning = "Every group has a rate of its own and learns nothing from the others."
    informs_new_group = False
    new_group_words = NewGroupWords(
        title="A new group: these data have no answer, this is only the prior",
        caption="Here there is nothing to see but the prior: in this model the groups tell nothing of each other, so "
        "that no data say anything of a new one.",
        source="from the prior alone: unpooled groups say nothing of a new one",
    )

    def rates(self, prior: Priors, num_groups: int) -> jax.Array:
        """One rate a group."""
        with numpyro.plate("group", num_groups):
            return numpyro.sample("lam", prior["lam"])

    def new_rates(self, draws: Draws, families: Families, values: PriorValues, rng: np.random.Generator) -> np.ndarray:
        """Draws from the prior."""
        return np.asarray(law(families["lam"], values["lam"]).rvs(len(draws["lam"]), random_state=rng))


UNPOOLED = Unpooled()
