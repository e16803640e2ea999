"""Atomic writing of files."""

import os
import shutil
from pathlib import Path


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file atomically: a reader sees the old content or the new, never a part.

    Surrogates from `surrogateescape` are written as the bytes that they were decoded from.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = _scratch(path)
    scratch.write_bytes(content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content)
    scratch.replace(path)


def link_or_copy(source: str, target: str) -> None:
    """Another name of the same file or, on another disk, a copy; atomically."""
    scratch = _scratch(Path(target))
    scratch.unlink(missing_ok=True)
    try:
        os.link(source, scratch)
    except OSError:  # another disk, or one without links
        shutil.copy2(source, scratch)
    scratch.replace(target)


def _scratch(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")
