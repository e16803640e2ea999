"""Atomic writing of files."""

from pathlib import Path


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file atomically: a reader sees the old content or the new, never a part.

    Surrogates from `surrogateescape` are written as the bytes that they were decoded from.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.part")
    scratch.write_bytes(content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content)
    scratch.replace(path)
