"""A command line to overrides that mean what was typed.

Hydra reads the value of an override by a grammar of its own: `null`, `1_000` and `1.50` become other values; a bracket,
a quote or an umlaut is an error; a dictionary is merged with the one in place. This module changes the overrides before
Hydra reads them. It quotes the values of names (columns, labels, paths, addresses) that Hydra would read as something
else. A prior that is given with its family replaces the one in place. Jobs of sweeps, records and repeated runs get the
changed overrides, so no later step does this again.
"""

import argparse
import importlib.metadata
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Quote, QuotedString
from hydra.errors import HydraException

from poolwise.config import names_of
from poolwise.errors import ConfigError
from poolwise.paths import CONF
from poolwise.text import one_line

# one value of several: quoted texts may contain commas
_ELEMENT = re.compile(r"""(?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[^,])+""", re.DOTALL)
_CHOICE = re.compile(r"choice\((.*)\)", re.DOTALL)


@contextmanager
def composing(config_dir: str | None) -> Iterator[None]:
    """Compose configs as Hydra's command line does, with the choices of `--config-dir`."""
    if config_dir is not None and not Path(config_dir).is_dir():
        raise ConfigError(f"--config-dir {config_dir} is not a folder. It is relative to {Path.cwd()}.")
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        if config_dir is not None:
            folder, schema = f"file://{Path(config_dir).resolve()}", SearchPathQuery(provider="schema")
            path = create_config_search_path(str(CONF))
            path.prepend(provider="command-line", path=folder, anchor=schema)
            GlobalHydra.instance().clear()
            Hydra.create_main_hydra2(task_name="app", config_search_path=path)
        yield


def parser(command: str, **told: Any) -> argparse.ArgumentParser:
    """The parser of a command with options of its own."""
    made = argparse.ArgumentParser(prog=f"python -m poolwise{command and '.'}{command}", **told)
    made.add_argument("--version", action="version", version=version(), help="show the version and exit")
    return made


def version() -> str:
    """The name and version of the package."""
    return f"poolwise {importlib.metadata.version('poolwise')}"


def asks_for_sweep(argument: str) -> bool:
    """Whether an argument may make the command a multirun."""
    return argument in ("-m", "--multirun") or argument.startswith(("experiments=", "hydra.mode="))


def as_typed(arguments: Sequence[str]) -> list[str]:
    """The command line of a Hydra command in the form that Hydra reads as it was typed; flags may stand anywhere.

    Raises
    ------
    ConfigError
        with one line per override that cannot be read, with the form to type.
    """
    if "--version" in arguments:
        print(version())
        sys.exit(0)
    overrides = get_args_parser().parse_intermixed_args(list(arguments)).overrides
    flags = [each for each in arguments if each not in overrides]
    may_sweep = any(map(asks_for_sweep, arguments))
    typed = [quoted(each, may_sweep=may_sweep) for each in overrides]
    if faults := [fault for each in typed if (fault := fault_of(each))]:
        raise ConfigError("\n".join(faults))
    # flags last: the optional value of --info is not an override
    return [part for each in typed for part in replacing(each)] + flags


def quoted(override: str, *, may_sweep: bool = False) -> str:
    """The override, with its value quoted if it is a name that Hydra would read as something else.

    Parameters
    ----------
    may_sweep : whether commas separate the values of a sweep; else they are part of the name
    """
    key, found, value = override.partition("=")
    names = names_of()
    if not found or (key := key.strip()).lstrip("+") not in names:
        return override
    unset = names[key.lstrip("+")]
    if may_sweep:
        listed = _CHOICE.fullmatch(value.strip())
        values = [each.strip() for each in _ELEMENT.findall(listed[1] if listed else value)] or [value]
    else:
        values = [value]
    return f"{key}={','.join(_name(each, unset) for each in values)}"


def replacing(override: str) -> list[str]:
    """The override, or two if it gives a prior with its family: Hydra would merge it with the family in place."""
    key, _, value = override.partition("=")
    if not re.fullmatch(r"prior\.\w+", key):
        return [override]
    read = OverridesParser.create().parse_override(override)
    values = read._value.list if isinstance(read._value, ChoiceSweep) else [read._value]
    if all(isinstance(each, dict) and "name" in each for each in values):
        return [f"~{key}", f"+{key}={value}"]
    return [override]


def fault_of(override: str) -> str:
    """Why an override cannot be read, with the form to type; empty if it can."""
    key, found, value = override.partition("=")
    try:
        OverridesParser.create().parse_override(override)
        is_read = bool(key.strip())
    except HydraException:
        is_read = False
    if is_read:
        return ""
    if not found or not key.strip():
        return f"{one_line(override)} sets nothing. Write <key>=<value>, without blanks around the sign."
    if value.lstrip().startswith(("[", "{")):
        return (
            f"{one_line(override)} cannot be read. Check its brackets, and put texts in it that have other characters "
            "than a-z, 0-9, blanks and -_./:@ in quotes."
        )
    return f"{one_line(override)} cannot be read. If the value is a text, type it in quotes: {_typed(key, value)}"


def _name(value: str, unset: str | None) -> str:
    """One name, quoted if Hydra would read another; `unset` stands for no name."""
    if value == unset:
        return "null"
    if "${" in value:  # an interpolation, as in data.path=${oc.env:HOME}/table.csv
        return value
    try:
        read = OverridesParser.create().parse_override(f"name={value}")
    except HydraException:
        read = None
    if read is not None and (
        isinstance(read._value, QuotedString) or (type(read._value) in (int, str) and str(read._value) == value)
    ):
        return value
    return QuotedString(value, Quote.single).with_quotes()


def _typed(key: str, value: str) -> str:
    """An override with a quoted value as it is typed in a shell."""
    quote = Quote.single if '"' in value else Quote.double
    return shlex.quote(f"{key}={QuotedString(value, quote).with_quotes()}")
