"""Exclusive locks on files, held by a process while it lives and let go of when it ends, however it ends."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from poolwise.errors import PoolwiseError


@contextmanager
def exclusive_lock(path: Path, *, otherwise: PoolwiseError | str) -> Iterator[None]:
    """Hold a lock.

    Parameters
    ----------
    otherwise : if another process has it, the error to raise; or the reason to tell while waiting for it
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if isinstance(otherwise, PoolwiseError):
            raise otherwise from None
        print(f"waiting: {otherwise}", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def is_free(path: Path) -> bool:
    """Whether no process holds a lock at this moment."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    lock.release()
    return True
