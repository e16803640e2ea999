"""Garbage collection in the processes of the commands."""

import functools
import gc

NEW_OBJECTS = 50_000  # between two collections; Python's own number is 700 to 2000


def collect_rarely() -> None:
    """Collect less often: the libraries keep a million objects, and looking through them took an eighth of a run."""
    gc.set_threshold(NEW_OBJECTS, *gc.get_threshold()[1:])


@functools.cache  # once: what a later call would find is to be collected
def skip_libraries() -> None:
    """Leave what exists now, libraries and programs, out of all collections: joblib collects after each job."""
    gc.collect()
    gc.freeze()
