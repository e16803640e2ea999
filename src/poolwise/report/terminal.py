"""A progress bar while a run samples, and lines when it is done."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from poolwise.text import lines_for


@contextmanager
def sampling_bar(num_steps: int, *, quiet: bool = False) -> Iterator[Callable[[str, int, str], None]]:
    """A bar of `num_steps` steps per chain; yields the callback for every chunk. Silent on request and off a terminal.

    The callback takes the phase, the total steps done, and what the engine says of them.
    """
    with _bar("steps", "{task.fields[words]}", quiet=quiet) as bar:
        task = bar.add_task("compiling", total=num_steps, words="")

        def update(phase: str, done: int, words: str) -> None:
            bar.update(task, description=phase, completed=done, words=words)

        yield update


@contextmanager
def table_bar(number: int, done: int) -> Iterator[Callable[[int, int], None]]:
    """A bar of simulated tables; yields the callback that takes the number done and the number with divergences."""
    with _bar("simulations", "{task.fields[divergent]} with divergences") as bar:
        task = bar.add_task("fitting", total=number, completed=done, divergent=0)

        def update(done: int, divergent: int) -> None:
            bar.update(task, completed=done, divergent=divergent)

        yield update


def _bar(unit: str, *told: str, quiet: bool = False) -> Progress:
    """A bar with the current phase, the progress in this unit, further fields and the time left."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:<9}"),
        BarColumn(bar_width=None, table_column=Column(ratio=1, max_width=30)),  # the first to shrink
        TextColumn(f"{{task.completed}}/{{task.total}} {unit}"),
        *map(TextColumn, told),
        TimeRemainingColumn(table_column=Column(no_wrap=True, min_width=7)),
        TextColumn("left"),
    )
    return Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal)


def say(*lines: str) -> None:
    """Print lines to standard output; control sequences in them do not reach the terminal."""
    sys.stdout.write("\n".join(part for text in lines for part in lines_for(sys.stdout, text)) + "\n")
    sys.stdout.flush()
