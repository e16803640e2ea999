"""Defer Ctrl-C and SIGTERM until it is safe to stop."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def defer_signals(until: str) -> Iterator[Callable[[], None]]:
    """Hold back the first signal; yields a function that delivers it, to be called whenever it is safe to stop.

    A second signal is delivered at once; a signal still held at the end of the block is delivered then. Outside the
    main thread nothing is held back, because signals do not arrive there.

    Parameters
    ----------
    until : what the program waits for, as printed for the user
    """
    before = {number: signal.getsignal(number) for number in SIGNALS}
    held: list[int] = []

    def hold(number: int, frame: FrameType | None) -> None:
        if held:
            _raise(number)
        held.append(number)
        print(f"stopping after {until}; repeat the signal to stop at once", file=sys.stderr)

    def _raise(number: int) -> None:
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, None)

    def let_through() -> None:
        if held:
            _raise(held[0])

    taken = [number for number in SIGNALS if callable(before[number])]
    if threading.current_thread() is not threading.main_thread():
        taken = []
    for number in taken:
        signal.signal(number, hold)
    try:
        yield let_through
    finally:
        for number in taken:
            signal.signal(number, before[number])
    let_through()
