"""Complete pooling: one rate for all groups."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro

from poolwise.model.poolings.base import Draws, Families, NewGroupWords, Pooling, overall_rate
from poolwise.model.priors import Arrays, Priors, PriorValues
from poolwise.model.sites import Site


class Pooled(Pooling):
    """Lam ~ prior."""

    name, short = "pooled", "pooled"
    sites = (Site("lam", "λ", "the rate of all groups"),)
    meaning = "Complete pooling: all groups share one rate."
    rate_symbol, whose_rate = "λ", "the rate of all groups"
    is_shared = True
    new_group_words = NewGroupWords(
        title="A new group, by the model: the same rate as all others",
        how_to_read="The model assumes that a new group has the one rate of all groups; the shape is the uncertainty "
        "of that rate.",
    )

    def rates(self, prior: Priors, num_groups: int) -> jax.Array:
        """One number, repeated."""
        lam = numpyro.sample("lam", prior["lam"])
        return jnp.broadcast_to(lam, (num_groups,))

    def shown_by(self, statistics: Arrays) -> dict[str, jax.Array]:
        """The rate of all rows."""
        return {"lam": overall_rate(statistics)}

    def new_rates(self, draws: Draws, families: Families, values: PriorValues, rng: np.random.Generator) -> np.ndarray:
        """The common rate."""
        return draws["lam"]


POOLED = Pooled()
