"""Files that are there whole or not at all."""

from pathlib import Path


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader sees it as it was or as it is now, and nothing in between.

    Text that came from bytes which are no UTF-8 (`surrogateescape`) becomes those bytes again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.part")
    scratch.write_bytes(content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content)
    scratch.replace(path)
