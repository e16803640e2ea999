"""The commands of poolwise, a line each: `python -m poolwise`."""

import ast
import sys

from poolwise import arguments
from poolwise.paths import PACKAGE

COMMANDS = ("run", "compare", "groups", "reproduce", "calibrate", "ui", "sync")


def cli() -> None:
    """The console command `poolwise`: print the commands, or the version."""
    parser = arguments.parser("", description=__doc__)
    parser.parse_args()
    sys.stdout.write(overview())


def overview() -> str:
    """The commands with the first line of what their modules say."""
    first = max(map(len, COMMANDS))
    lines = [f"  python -m poolwise.{name:<{first}}  {_told(name)}" for name in COMMANDS]
    return "\n".join([arguments.version(), "", *lines, "", "Each takes --help.", ""])


def _told(command: str) -> str:
    """The first line of a module's docstring; the module is read, not imported, as some load JAX or MLflow."""
    docstring = ast.get_docstring(ast.parse((PACKAGE / f"{command}.py").read_text(encoding="utf-8")))
    return (docstring or "").partition("\n")[0]


if __name__ == "__main__":
    cli()
