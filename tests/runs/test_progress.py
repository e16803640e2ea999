"""R-hat and ESS while a fit samples: when they are computed, and the last point."""

from types import SimpleNamespace

import numpy as np
import pytest

from poolwise.inference.engines.base import Progress
from poolwise.runs import progress

TOTAL, CHAINS = 1000, 4


class Clock:
    """Seconds that pass only when a test says so."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


class FakeRun:
    """Notes what is logged."""

    def __init__(self):
        self.record, self.said = SimpleNamespace(progress=[]), []

    def state(self, stage, **details):
        pass

    def progress(self, step, metrics):
        self.record.progress.append((step, 0, metrics))


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(progress, "time", made)
    return made


@pytest.fixture
def sampled(clock, monkeypatch):
    """`sampled(seconds, takes=...)`: the steps logged by a fit of ten chunks, each of which takes so long."""

    def run(seconds: float, *, takes: float, points: int = 10) -> list[int]:
        def convergence(draws):
            clock.now += takes
            return 1.0, 400.0

        monkeypatch.setattr(progress, "convergence", convergence)
        logged = FakeRun()
        look = progress.report(job_of(points), logged, lambda *_: None, lambda: None)
        clock.now += 100.0  # compiling: not sampling
        for phase in ("warm-up", "sampling"):
            for done in range(100, TOTAL + 1, 100):
                clock.now += seconds
                look(Progress(phase, done, TOTAL, 0, None, dict))
        return [step for step, _, _ in logged.record.progress]

    return run


def job_of(points: int) -> SimpleNamespace:
    sampler = SimpleNamespace(num_warmup=TOTAL, num_samples=TOTAL, num_chains=CHAINS)
    return SimpleNamespace(config=SimpleNamespace(sampler=sampler, checks=SimpleNamespace(progress=points)))


def test_a_long_fit_logs_every_point_but_the_last(sampled):
    assert sampled(60.0, takes=0.1) == [CHAINS * done for done in range(100, TOTAL, 100)]


def test_a_fit_of_a_moment_logs_none(sampled):
    assert sampled(0.01, takes=0.02) == []


@pytest.mark.parametrize("takes", [0.3, 1.0, 5.0])
def test_the_points_take_at_most_a_tenth_of_sampling(sampled, takes):
    # the first is taken before it is known what it costs
    steps = sampled(2.0, takes=takes)
    assert steps
    assert len(steps) == 1 or len(steps) * takes <= progress.SHARE * 2.0 * 19


def test_no_point_is_logged_if_none_is_asked(sampled):
    assert sampled(60.0, takes=0.1, points=0) == []


def test_the_last_point_is_that_of_the_verdict_and_is_logged_once():
    logged, verdict = FakeRun(), SimpleNamespace(r_hat_max=1.01, ess_bulk_min=np.float64(900.0))
    for _ in range(2):
        progress.log_last(job_of(10), logged, verdict)
    assert logged.record.progress == [(4000, 0, {"progress/r_hat_max": 1.01, "progress/ess_bulk_min": 900.0})]
