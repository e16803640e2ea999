"""What a sampler of the bench is: a hierarchical problem to draws of its posterior, compiled before it is timed."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from poolwise.counts.cells import Counts

CHAINS, WARMUP, DRAWS = 4, 2000, 4000  # of every sampler of Markov chains: the lengths of the notebook
Draws = dict[str, np.ndarray]


@dataclass(frozen=True)
class Problem:
    """The hierarchical model of counts in groups, with the priors of the notebook.

    Attributes
    ----------
    likelihood : ``poisson`` or ``negative_binomial``
    """

    likelihood: str
    counts: Counts

    @property
    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Group and count of each row, (N,) and (N,); groups are numbered from 0."""
        group, _, count = self.counts.rows()
        return group, count

    @property
    def is_overdispersed(self) -> bool:
        """Whether the model has delta."""
        return self.likelihood == "negative_binomial"

    @property
    def sites(self) -> tuple[str, ...]:
        """The parameters that a sampler must return."""
        return ("lam", "mu", "sigma") + ("delta",) * self.is_overdispersed


@dataclass(frozen=True)
class Sampler:
    """A sampler to measure.

    Attributes
    ----------
    name : in tables
    package : on the package index; its version is reported
    note : parameterisation and settings that are not those of all
    prepare : called once in a process of its own, imports and builds; returns the function that is timed:
        seed -> site -> (chain, draw, ...), warm-up included
    """

    name: str
    package: str
    note: str
    prepare: Callable[[Problem], Callable[[int], Draws]]
