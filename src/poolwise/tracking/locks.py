"""Exclusive file locks. The lock is released when its process ends, even if it is killed."""

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
    otherwise : if another process holds it, the error to raise, or the reason to print while waiting
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
    """Whether no process holds the lock now."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    lock.release()
    return True
