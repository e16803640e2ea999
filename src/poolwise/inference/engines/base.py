"""The interface of an engine: a model and its counts to posterior draws, in chunks that can be saved and resumed."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from poolwise.model.count_model import Model

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


@dataclass(frozen=True, eq=False)
class Engine:
    """A way to draw from a posterior.

    Attributes
    ----------
    name : in configs, `sampler.name`
    sample : (model, counts, values, *, seed, sampler, device, resume_from, on_chunk, on_progress) -> Fit; see
        `inference.engines.nuts.sample`
    settings : of `sampler`, those that it needs besides the name, the chains and their draws
    refusal : model -> why it cannot be sampled, one sentence with the remedy; empty if it can
    """

    name: str
    sample: Callable[..., Fit]
    settings: tuple[str, ...] = ()
    refusal: Callable[[Model], str] = lambda model: ""
