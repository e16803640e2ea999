"""Names, lists and tables in sentences."""

from collections.abc import Iterable

NAMED = 5  # names in a sentence


def one_line(name: str) -> str:
    """A file's name as it is shown: what cannot be printed, escaped."""
    return name if name.isprintable() else ascii(name)[1:-1]


def listed(names: Iterable[str]) -> str:
    """Names in a sentence, the first `NAMED` of them."""
    names = list(names)
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
