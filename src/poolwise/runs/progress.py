"""The progress of a fit while it samples: a bar, the stage of the run, R-hat and ESS so far."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from poolwise.checks.gate import Verdict
from poolwise.checks.summary import convergence
from poolwise.inference.engines.base import Progress
from poolwise.runs.job import Job
from poolwise.tracking.run import Run

SHARE = 0.1  # of the time of sampling, for R-hat and ESS
FIRST_SECONDS = 0.2  # that R-hat and ESS are expected to take the first time, on a busy machine


def report(
    job: Job, logged: Run, bar: Callable[[str, int, str], None], stop_if_asked: Callable[[], None]
) -> Callable[[Progress], None]:
    """A function to call after every chunk: moves the bar; logs R-hat and ESS so far, at most `checks.progress` times.

    R-hat and ESS wait until they take less than `SHARE` of the time, so a fit of less than two seconds logs only
    those of all draws (`log_last`).
    """
    sampler, points = job.config.sampler, job.config.checks.progress
    logged_steps = _logged_steps(logged)
    times = len(logged_steps)
    budget: Budget | None = None  # begins with the first chunk, after the compilation

    def look(progress: Progress) -> None:
        nonlocal times, budget
        budget = budget or Budget()
        before = sampler.num_warmup if progress.phase == "sampling" else 0
        step, due = progress.done * sampler.num_chains, progress.done * points // progress.total
        bar(progress.phase, before + progress.done, progress.words)
        logged.state(progress.phase, draws=step, divergences=progress.divergences)
        can_be = progress.phase == "sampling" and 4 <= progress.done < progress.total  # R-hat needs 4 draws per chain
        if can_be and due > times and step not in logged_steps and budget.allows():
            began, times = time.perf_counter(), due
            _log(logged, step, *convergence(progress.posterior()))
            budget.spend(time.perf_counter() - began)
        try:
            stop_if_asked()
        except (KeyboardInterrupt, SystemExit):
            reached = f"{before + progress.done:,} of {sampler.num_warmup + sampler.num_samples:,}"
            print(f"stopped at step {reached}; the same command goes on", file=sys.stderr)
            raise

    return look


def log_last(job: Job, logged: Run, verdict: Verdict) -> None:
    """Log R-hat and ESS of all draws, which the verdict has, as the last point of their progress."""
    step = job.config.sampler.num_samples * job.config.sampler.num_chains
    if job.config.checks.progress and step not in _logged_steps(logged):
        _log(logged, step, verdict.r_hat_max, verdict.ess_bulk_min)


@dataclass
class Budget:
    """Time that may be spent besides sampling: `SHARE` of that since the first chunk.

    Attributes
    ----------
    spent, last : seconds in all, and of the last time
    """

    spent: float = 0.0
    last: float = FIRST_SECONDS
    began: float = field(default_factory=lambda: time.perf_counter())

    def allows(self) -> bool:
        """Whether there is time for one more."""
        return self.spent + self.last <= SHARE * (time.perf_counter() - self.began - self.spent)

    def spend(self, seconds: float) -> None:
        """Note what one took."""
        self.spent, self.last = self.spent + seconds, seconds


def _logged_steps(logged: Run) -> set[int]:
    return {step for step, _, _ in logged.record.progress if step}


def _log(logged: Run, step: int, r_hat: float, ess: float) -> None:
    logged.progress(step, {"progress/r_hat_max": r_hat, "progress/ess_bulk_min": ess})
