"""Effective draws per second of the engines and their peers, side by side on the cookies.

Every sampler lives in a process of its own, which imports, compiles and draws once before it is timed. Then the
samplers take turns, so that a busy minute of a shared machine meets all of them. The seconds are those of one call from
outside: warm-up, draws and their way to NumPy. Draws that contradict the exact posterior are not timed.
"""

import importlib.metadata
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field

from bench.base import Result, Settings, Table, tell
from bench.judge import least_effective, refusal
from bench.samplers import SAMPLERS, Draws, Problem, Sampler
from exact_reference import recorded
from poolwise.counts.cells import read_counts
from support import ROOT

LIKELIHOODS = ("poisson", "negative_binomial")
OWN = "poolwise"
END = 10  # seconds that an idle process may take to end


@dataclass
class Measured:
    """A sampler and its rounds: effective draws and seconds; or why it has none."""

    sampler: Sampler
    effective: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    problem: str = ""

    def add(self, outcome: "Outcome") -> None:
        """Keep a round."""
        self.problem, effective, seconds = outcome
        self.effective.append(effective)
        self.seconds.append(seconds)

    @property
    def rates(self) -> list[float]:
        """Effective draws per second of each round; none of a sampler with a problem."""
        return [] if self.problem else [n / s for n, s in zip(self.effective, self.seconds, strict=True)]

    @property
    def rate(self) -> float | None:
        """The median of the rounds."""
        return statistics.median(self.rates) if self.rates else None


def measure(settings: Settings) -> Result:
    """The table of each likelihood."""
    tables, metrics, remarks = [], {}, []
    for likelihood in LIKELIHOODS:
        found = side_by_side(SAMPLERS, likelihood, settings)
        tables.append(table_of(found, likelihood))
        metrics |= {
            f"ess_per_second/{likelihood}.{slug(each.sampler.name)}": each.rate
            for each in found
            if each.rate is not None
        }
        remarks += remarks_of(found, likelihood)
    return Result(tuple(tables), (), metrics, tuple(remarks))


def side_by_side(samplers: Sequence[Sampler], likelihood: str, settings: Settings) -> list[Measured]:
    """All samplers on one problem; one that fails is kept with its reason."""
    found = [Measured(each) for each in samplers]
    context = multiprocessing.get_context("spawn")
    pools = [ProcessPoolExecutor(1, mp_context=context, initializer=silence) for _ in found]
    try:
        for pool, each in zip(pools, found, strict=True):
            each.problem = outcome(pool.submit(begin, each.sampler, likelihood), settings.seconds)[0]
            tell(f"{likelihood}: {each.sampler.name} {each.problem or 'ready'}")
        for seed in range(1, settings.rounds + 1):
            for pool, each in zip(pools, found, strict=True):
                if not each.problem:
                    each.add(outcome(pool.submit(timed, seed), settings.seconds))
            tell(f"{likelihood}: round {seed} of {settings.rounds}")
    finally:
        for pool in pools:
            pool.shutdown(wait=False)
        for process in multiprocessing.active_children():
            process.join(END)  # with the processes that a peer started
            process.kill()  # if it hangs in compiled code
    return found


Outcome = tuple[str, float, float]  # problem, effective draws, seconds
_draw: Callable[[int], Draws]  # of the sampler of this process
_exact = None


def silence() -> None:
    """Drop the progress bars of a process."""
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)


def begin(sampler: Sampler, likelihood: str) -> Outcome:
    """Import, build, compile and judge the first draws, which are not timed."""
    global _draw, _exact
    try:
        counts = read_counts(ROOT / "data" / "cookies.csv", group="location", count="chips", name="cookies")
        _draw, _exact = sampler.prepare(Problem(likelihood, counts)), recorded("hierarchical", likelihood)
        return timed(0)
    except ImportError as error:
        return f"not installed: {error}", 0.0, 0.0
    except Exception as error:  # of any library: the table names it
        return f"failed: {type(error).__name__}: {next(iter(str(error).splitlines()), '')}", 0.0, 0.0


def timed(seed: int) -> Outcome:
    """One call of the sampler of this process, and the judgement on its draws."""
    began = time.perf_counter()
    draws = _draw(seed)
    seconds = time.perf_counter() - began
    problem = refusal(draws, _exact)
    return problem, 0.0 if problem else least_effective(draws, _exact), seconds


def outcome(future: Future, limit: float) -> Outcome:
    """The result of a process, or what became of it."""
    try:
        return future.result(limit)
    except TimeoutError:
        return f"failed: no answer in {limit:.0f} s", 0.0, 0.0
    except Exception as error:  # a killed process, or an error in a later call
        return f"failed: {type(error).__name__}: {error}", 0.0, 0.0


def table_of(found: Sequence[Measured], likelihood: str) -> Table:
    """The fastest first; then those without a number, with the reason."""
    base = next((each.rate for each in found if each.sampler.name == "nuts"), None)
    rows = [
        (
            each.sampler.name,
            version(each.sampler.package),
            each.rate,
            min(each.rates, default=None),
            max(each.rates, default=None),
            each.rate / base if each.rate and base else None,
            statistics.median(each.seconds) if each.rates else None,
            each.problem or each.sampler.note,
        )
        for each in sorted(found, key=lambda each: -(each.rate or 0))
    ]
    rounds = max((len(each.rates) for each in found), default=0)
    title = (
        f"Effective draws a second, hierarchical {likelihood.replace('_', ' ')}, cookies "
        f"(smallest bulk ESS over all parameters; compiled; median of {rounds})"
    )
    columns = ("sampler", "version", "ESS/s", "lowest", "highest", "x nuts", "seconds", "settings")
    return Table(f"engines_{likelihood}", title, columns, rows)


def remarks_of(found: Sequence[Measured], likelihood: str) -> list[str]:
    """The own engines against the best peer, and every peer that has no number."""
    told = [f"{each.sampler.name} has no number for {likelihood}: {each.problem}" for each in found if each.problem]
    rate = {each.sampler.name: each.rate for each in found if each.rate and each.sampler.package == OWN}
    peers = {each.sampler.name: each.rate for each in found if each.rate and each.sampler.package != OWN}
    if peers and rate:
        best = max(peers, key=lambda name: peers[name])
        ratios = ", ".join(f"{name} {value / peers[best]:.2f} x" for name, value in rate.items())
        told.append(f"{likelihood}: against the best peer, {best}: {ratios}")
    return told


def version(package: str) -> str:
    """The installed version of a package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "-"


def slug(name: str) -> str:
    """A name as a metric may bear it."""
    return "_".join(name.replace(",", "").split())
