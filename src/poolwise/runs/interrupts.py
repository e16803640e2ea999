"""Ctrl-C and SIGTERM that wait for a good moment."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def defer_signals(until: str) -> Iterator[Callable[[], None]]:
    """Hold back the first signal; yields the function that lets it through, to be called at every good moment.

    A second signal goes through at once, and so does, at the end of the block, one that is still held. Elsewhere than
    in the main thread nothing is held back, as signals do not come there.

    Parameters
    ----------
    until : what the user is told that the program waits for
    """
    before = {number: signal.getsignal(number) for number in SIGNALS}
    held: list[int] = []

    def hold(number: int, frame: FrameType | None) -> None:
        if held:
            _raise(number)
        held.append(number)
        print(f"stopping after {until}; once more to stop at once", file=sys.stderr)

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
