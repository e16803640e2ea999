"""NumPy on all cores: it leaves the interpreter to other threads while it computes."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from poolwise.inference.devices import usable_cores


def on_threads[Item, Found](task: Callable[[Item], Found], items: Iterable[Item]) -> list[Found]:
    """The results of a task at each of the items, in their order."""
    with ThreadPoolExecutor(usable_cores()) as pool:
        return list(pool.map(task, items))
