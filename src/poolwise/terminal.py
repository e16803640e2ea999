"""A bar while a run samples, and lines when it is done."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from poolwise.errors import SweepError


@contextmanager
def sampling_bar(num_steps: int, *, quiet: bool = False) -> Iterator[Callable[[str, int, int, float], None]]:
    """A bar of `num_steps` steps per chain; yields what to call after every chunk. Silent if asked, and off a terminal.

    The callable takes the phase, the steps done in all, the divergences and the step size.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:<9}"),
        BarColumn(bar_width=30),
        TextColumn("{task.completed}/{task.total} steps"),
        TextColumn("{task.fields[divergences]} divergences"),
        TextColumn("step size {task.fields[step_size]:.3f}"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task("compiling", total=num_steps, divergences=0, step_size=1.0)

        def update(phase: str, done: int, divergences: int, step_size: float) -> None:
            bar.update(task, description=phase, completed=done, divergences=divergences, step_size=step_size)

        yield update


@contextmanager
def waiting(path: Path, reason: str) -> Iterator[None]:
    """Hold a lock, waiting for whoever has it and saying why."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{path}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"waiting: {reason}", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def sole(path: Path, reason: str) -> Iterator[None]:
    """Hold a lock; if another process has it, refuse.

    Raises
    ------
    SweepError
        with the reason.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{path}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise SweepError(f"{reason}. Wait for it to end, then start it again: what is done is reused.") from None
    try:
        yield
    finally:
        lock.release()


def say(*lines: str) -> None:
    """Print lines to standard output."""
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
