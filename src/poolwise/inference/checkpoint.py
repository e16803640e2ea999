"""The chunks of a fit to files and back, so a killed fit resumes to the same draws.

A folder belongs to one fit. A file holds one chunk: the state of the chains after it and the draws of that chunk alone.
It is written once, and its name contains the sha256 of its content, so a file truncated by a crash or a full disk is
recognised and ignored. Chunks of different lengths may share a folder: the draws do not depend on the length.
"""

import hashlib
import io
import os
import re
import zipfile
from pathlib import Path

import numpy as np

from poolwise.inference.snapshot import Snapshot

NAME = re.compile(r"\d{9,}\.(?P<sha256>[0-9a-f]{64})\.npz")


def save(folder: Path, snapshot: Snapshot) -> None:
    """Save a chunk atomically.

    Parameters
    ----------
    folder : created if missing
    snapshot : as passed to `on_chunk`, with the draws of one chunk

    Raises
    ------
    OSError
        if it cannot be written, for example on a full disk; earlier chunks are unchanged.
    """
    content = _content(snapshot)
    path = folder / f"{snapshot.steps:09d}.{hashlib.sha256(content).hexdigest()}.npz"
    part = path.with_suffix(".part")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        _sync(folder)
    finally:
        part.unlink(missing_ok=True)


def load(folder: Path) -> Snapshot | None:
    """The state after the longest unbroken sequence of valid chunks, with all its draws; None if there is none."""
    reached: dict[int, Snapshot | None] = {0: None}  # steps -> the chunk that ends there
    for path in sorted(folder.glob("*.npz")):  # by end step, so every chunk comes after its predecessor
        chunk = _read(path)
        if chunk and _begin(chunk) in reached:
            reached.setdefault(chunk.steps, chunk)
    row: list[Snapshot] = []
    last = reached[max(reached)]
    while last:
        row.insert(0, last)
        last = reached[_begin(last)]
    return _joined(row) if row else None


def _begin(chunk: Snapshot) -> int:
    """The step after which the draws of a chunk begin; 0 in the warm-up, whose chunks hold no draws."""
    return chunk.steps - next((draws.shape[1] for draws in chunk.drawn.values()), chunk.steps)


def _joined(row: list[Snapshot]) -> Snapshot:
    drawn = [chunk.drawn for chunk in row if chunk.drawn]
    names = drawn[0] if drawn else {}
    together = {name: np.concatenate([each[name] for each in drawn], axis=1) for name in names}
    return Snapshot(row[-1].steps, row[-1].state, together, row[-1].seconds)


def _content(snapshot: Snapshot) -> bytes:
    arrays = {f"state {name}": leaf for name, leaf in snapshot.state.items()}
    arrays |= {f"drawn {name}": draws for name, draws in snapshot.drawn.items()}
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, steps=snapshot.steps, seconds=snapshot.seconds, **arrays)
    return content.getvalue()


def _read(path: Path) -> Snapshot | None:
    """The chunk in a file; None if the file is truncated or foreign."""
    name = NAME.fullmatch(path.name)
    try:
        content = path.read_bytes()
        if not name or hashlib.sha256(content).hexdigest() != name["sha256"]:
            return None
        with np.lib.npyio.NpzFile(io.BytesIO(content), allow_pickle=False) as stored:
            arrays = dict(stored)
        state, drawn = (_under(prefix, arrays) for prefix in ("state ", "drawn "))
        return Snapshot(int(arrays["steps"]), state, drawn, float(arrays["seconds"]))
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def _under(prefix: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _sync(folder: Path) -> None:
    """Flush the names in a folder to disk, so they survive a crash."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
