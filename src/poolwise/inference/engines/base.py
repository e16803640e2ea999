"""The interface of an engine: a model and its counts to posterior draws, in chunks that can be saved and resumed."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from poolwise.counts.cells import Counts
from poolwise.inference.settings import Device, Sampler
from poolwise.inference.snapshot import Snapshot
from poolwise.model.count_model import Model
from poolwise.model.priors import PriorValues

Draws = dict[str, np.ndarray]


@dataclass(frozen=True)
class Progress:
    """Progress after a chunk.

    Attributes
    ----------
    phase : "warm-up" or "sampling"
    done, total : steps per chain of this phase
    divergences : after the warm-up, over all chains
    step_size : mean over the chains; None without steps
    posterior : returns the draws so far, site -> (chain, draw, ...)
    """

    phase: str
    done: int
    total: int
    divergences: int
    step_size: float | None
    posterior: Callable[[], Draws]

    @property
    def words(self) -> str:
        """What happened so far, for a progress bar."""
        return "" if self.step_size is None else f"{self.divergences} divergences, step size {self.step_size:.3f}"


@dataclass(frozen=True)
class Fit:
    """The draws of one fit.

    Attributes
    ----------
    posterior : site -> (chain, draw, ...), sampled sites, rates that were integrated out, and derived sites
        (`alpha`, `beta`, `phi`)
    sample_stats : `lp` and the engine's own -> (chain, draw): of NUTS diverging, energy, n_steps, tree_depth,
        acceptance_rate, step_size; of independent draws `log_ratio`, see `checks.gate`
    seconds : stage ("compile", "sample") -> seconds
    """

    posterior: Draws
    sample_stats: Draws
    seconds: dict[str, float] = field(default_factory=dict)


class Sample(Protocol):
    """A model and its counts to posterior draws.

    The same arguments give the same bits for any `device.num_devices` and `resume_from`.

    Parameters
    ----------
    values : site -> parameter -> (), the values of the priors (`priors.prior_values`)
    resume_from : the state to resume from, with all draws so far, of a fit with the same arguments, except
        `checkpoint_every` and `device.num_devices`; only shapes are checked, the caller is responsible for the values
    on_chunk : called after every chunk that can be resumed from, with the draws of that chunk alone
    on_progress : called after every chunk, and after `on_chunk`

    Raises
    ------
    FitError
        if the posterior cannot be drawn from, or `resume_from` belongs to another kind of fit.
    """

    def __call__(
        self,
        model: Model,
        counts: Counts,
        values: PriorValues,
        *,
        seed: int,
        sampler: Sampler,
        device: Device,
        resume_from: Snapshot | None = None,
        on_chunk: Callable[[Snapshot], None] | None = None,
        on_progress: Callable[[Progress], None] = lambda progress: None,
    ) -> Fit:
        """Draw."""


@dataclass(frozen=True, eq=False)
class Engine:
    """A way to draw from a posterior.

    Attributes
    ----------
    name : in configs, `sampler.name`
    settings : of `sampler`, those that it needs besides the name, the chains and their draws
    refusal : model -> why it cannot be sampled, one sentence with the remedy; empty if it can
    """

    name: str
    sample: Sample
    settings: tuple[str, ...] = ()
    refusal: Callable[[Model], str] = lambda model: ""
