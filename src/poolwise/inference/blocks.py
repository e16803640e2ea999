"""A program at many rows, in blocks of fixed size that the devices share: a block has the same bits on any of them."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

BLOCK, SMALL = 4096, 512  # rows of one call; a call of fewer rows is padded to one of these
WORK = 2**20  # values held at once in a call


class Blocks:
    """Blocks of up to `BLOCK` rows, and the arguments that all of them share, on all devices."""

    def __init__(self, num_devices: int | None, args: tuple[Any, ...]):
        self.args = args
        self._given = [jax.device_put(args, each) for each in jax.devices()[:num_devices]]
        self.num_devices = len(self._given)
        self._pool = ThreadPoolExecutor(self.num_devices)

    def __enter__(self) -> "Blocks":
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the threads."""
        self._pool.shutdown()

    def each(self, task: Callable[[int], Any], numbers: Iterable[int]) -> list[Any]:
        """The results of numbered tasks, in their order."""
        return list(self._pool.map(task, numbers))

    def call(self, program: Callable, number: int, *block: np.ndarray) -> Any:
        """A program at up to `BLOCK` rows and the shared arguments, on the device of this number."""
        num = len(block[0])
        size = SMALL if num <= SMALL else BLOCK
        filled = (np.pad(each, [(0, size - num)] + [(0, 0)] * (each.ndim - 1), mode="edge") for each in block)
        found = jax.device_get(program(*filled, *self._given[number % len(self._given)]))
        return jax.tree.map(lambda leaf: leaf[:num], found)

    def mapped(self, program: Callable, *rows: np.ndarray) -> Any:
        """A program at any number of rows."""
        parts = self.each(
            lambda number: self.call(program, number, *(each[number * BLOCK : (number + 1) * BLOCK] for each in rows)),
            range(-(-len(rows[0]) // BLOCK)),
        )
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def over_rows(one: Callable, rows: Any, args: tuple) -> Any:
    """A function of one row mapped over rows, few enough at once for arguments of this size; inside a program."""
    size = max(1, WORK // max(each.size for each in jax.tree.leaves(args)))
    return jax.lax.map(one, rows, batch_size=min(size, BLOCK))
