"""Garbage collection in the processes of the commands."""

import gc

NEW_OBJECTS = 50_000  # between two collections; Python's own number is 700 to 2000


def collect_rarely() -> None:
    """Collect less often: the libraries keep a million objects, and looking through them took an eighth of a run."""
    gc.set_threshold(NEW_OBJECTS, *gc.get_threshold()[1:])
