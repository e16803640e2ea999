"""One command of the project in a process of its own: its seconds, its memory, and what the run logged."""

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from bench.base import Settings, tell

VERDICTS = ("trusted:", "suspect:")  # how the line begins that says what the fit is worth
POLL = 0.1  # seconds between two looks at the memory


@dataclass(frozen=True)
class Run:
    """A process that ended.

    Attributes
    ----------
    seconds : of the whole process
    megabytes : largest resident memory; 0 where the system does not say
    verdict : seconds until the verdict is on the terminal; None if there was none
    logged : the metrics of the runs that it made, in order
    problem : why it did not finish, or empty
    """

    seconds: float
    megabytes: float
    verdict: float | None = None
    logged: list[dict[str, float]] = field(default_factory=list)
    problem: str = ""

    @property
    def metrics(self) -> dict[str, float]:
        """Those of the last run."""
        return self.logged[-1] if self.logged else {}


def poolwise(*arguments: str, outputs: Path, settings: Settings) -> Run:
    """`python -m poolwise.run` with these arguments; nothing is loaded from elsewhere than `outputs`."""
    environment = os.environ | {"POOLWISE_OUTPUTS": str(outputs)}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    environment.pop("MLFLOW_TRACKING_URI", None)
    return process(("-m", "poolwise.run", *arguments), settings, environment=environment, outputs=outputs)


def process(
    arguments: Sequence[str],
    settings: Settings,
    *,
    environment: dict[str, str] | None = None,
    outputs: Path | None = None,
) -> Run:
    """Run Python with these arguments, within the limits."""
    before = set(_records(outputs))
    began = time.perf_counter()
    started = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )
    said: list[tuple[float, str]] = []
    reader = threading.Thread(target=lambda: said.extend(_timed_lines(started, began)))
    reader.start()
    problem, megabytes = _watched(started, began, settings)
    seconds = time.perf_counter() - began
    reader.join()
    if started.returncode and not problem:
        problem = f"exit code {started.returncode}: {said[-1][1].strip() if said else 'no output'}"
    verdict = next((at for at, line in said if line.startswith(VERDICTS)), None)
    made = sorted(set(_records(outputs)) - before, key=os.path.getmtime)
    logged = [json.loads(path.read_text())["metrics"] for path in made]
    tell(f"{seconds:.1f} s, {megabytes:,.0f} MB: {' '.join(arguments)} {problem}")
    return Run(seconds, megabytes, verdict, logged, problem)


def repeated(run: Callable[[int], Run], settings: Settings) -> list[Run]:
    """A first run, which compiles and is dropped; then as many as the settings ask for, or one of a slow case.

    A run that does not finish is the only one.
    """
    first = run(0)
    if first.problem:
        return [first]
    rounds = settings.rounds if first.seconds <= settings.patience else 1
    found = []
    for seed in range(1, rounds + 1):
        found.append(run(seed))
        if found[-1].problem:
            return found[-1:]
    return found


def median(runs: Sequence[Run], of: Callable[[Run], float]) -> float | None:
    """Of the runs that finished; None if the last did not."""
    return None if not runs or runs[-1].problem else statistics.median(map(of, runs))


def _watched(started: subprocess.Popen, began: float, settings: Settings) -> tuple[str, float]:
    """Wait for a process, and end it beyond the limits: the problem, and its largest memory in MB."""
    problem, megabytes = "", 0.0
    while started.poll() is None:
        megabytes = max(megabytes, _largest_resident(started.pid))
        if not problem:
            if time.perf_counter() - began > settings.seconds:
                problem = f"over {settings.seconds:g} s"
            elif megabytes > settings.megabytes:
                problem = f"over {settings.megabytes:,.0f} MB"
            if problem:
                started.kill()
        time.sleep(POLL)
    return problem, megabytes


def _largest_resident(pid: int) -> float:
    """Largest resident memory so far in MB; 0 where the system does not say (it is Linux that does)."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**10
    return 0.0


def _timed_lines(started: subprocess.Popen, began: float) -> Iterator[tuple[float, str]]:
    with started.stdout as lines:
        for line in lines:
            yield time.perf_counter() - began, line


def _records(outputs: Path | None) -> Iterator[Path]:
    return (outputs / "runs").glob("*/record.json") if outputs else iter(())
