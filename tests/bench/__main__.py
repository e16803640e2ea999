"""The benchmarks: cost of this project, and of its peers, measured side by side.

    make bench                                       all parts; takes hours on two cores
    make bench ARGS="engines devices"                some of them
    make bench ARGS="rows groups --most 100000 --seconds 300"

Tables are printed, and logged with figures as one run of the experiment `bench`. Machines differ and are shared, so
compare the numbers of one table, not of two.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench import devices, engines, sizes, stages, sweep, variants
from bench.base import Part, Result, Settings
from bench.picture import picture
from poolwise.inference.devices import usable_cores
from poolwise.paths import outputs
from poolwise.provenance.stack import distributions, stack
from poolwise.text import markdown
from poolwise.tracking.credentials import store_uri
from poolwise.tracking.record import Record
from poolwise.tracking.run import logged_run
from poolwise.tracking.store import KIND

PARTS = (
    Part("engines", "effective draws a second of both engines and their peers", engines.measure),
    Part("variants", "effective draws a second of every variant", variants.measure),
    Part("rows", "whole runs against rows", sizes.rows),
    Part("groups", "whole runs against groups", sizes.groups),
    Part("devices", "sampling on 1, 2 and 4 devices", devices.measure),
    Part("sweep", "six variants against the three models of the notebook", sweep.measure),
    Part("stages", "a default run stage by stage, cold and warm", stages.measure),
)
PACKAGES = ("jax", "numpyro", "blackjax", "nutpie", "pymc", "pystan", "arviz", "numpy")


def main(arguments: Sequence[str]) -> None:
    """Measure, print and log."""
    asked = parser().parse_args(arguments)
    parts = [part for part in PARTS if part.name in (asked.parts or [part.name for part in PARTS])]
    machine = the_machine()
    print(*(f"{key}: {value}" for key, value in machine.items()), sep="\n", flush=True)
    params = {**machine, **{key: value for key, value in vars(asked).items() if key != "parts"}}
    names = " ".join(part.name for part in parts)
    record = Record(name=f"bench {names}", experiment="bench", params=params, tags={KIND: "bench", "parts": names})
    with logged_run(record, uri=store_uri(None, outputs()), outputs=outputs()) as logged:
        for part in parts:
            before = load()
            with tempfile.TemporaryDirectory() as scratch:
                result = part.measure(settings_of(asked, Path(scratch)))
            result = replace(result, remarks=(*result.remarks, f"load of the machine: {before} before, {load()} after"))
            print("", *lines_of(part, result), sep="\n", flush=True)
            logged.record.metrics |= result.metrics
            logged.record.note += "\n".join([*note_of(part, result), ""])
            for name, content in files_of(result).items():
                logged.write(name, content)
    print("", *logged.location_lines(), sep="\n")


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.splitlines()[0])
    told = "; ".join(f"{part.name}: {part.question}" for part in PARTS)
    parser.add_argument("parts", nargs="*", metavar="part", help=told, choices=[part.name for part in PARTS])
    parser.add_argument("--rounds", type=int, default=3, help="measurements of a case; the median is reported")
    parser.add_argument("--most", type=int, default=10**7, help="largest number of rows or groups")
    parser.add_argument("--seconds", type=float, default=600, help="limit of one process")
    parser.add_argument("--megabytes", type=float, default=6000, help="limit of one process")
    parser.add_argument("--patience", type=float, default=60, help="seconds beyond which a case is measured once")
    return parser


def settings_of(asked: argparse.Namespace, scratch: Path) -> Settings:
    """The settings that these arguments ask for."""
    return Settings(**{key: value for key, value in vars(asked).items() if key != "parts"}, scratch=scratch)


def the_machine() -> dict[str, str]:
    """What the seconds depend on."""
    installed = dict(line.partition("==")[::2] for line in distributions().splitlines())
    versions = ", ".join(f"{name} {installed.get(name, 'not installed')}" for name in PACKAGES)
    found = stack({})
    return {"cpu": found["cpu"], "cores": str(usable_cores()), "python": found["python"], "versions": versions}


def load() -> str:
    """Processes that run or wait, mean of the last minute: above the number of cores, all seconds are too long."""
    return f"{os.getloadavg()[0]:.1f}"


def lines_of(part: Part, result: Result) -> list[str]:
    """What is printed."""
    tables = [line for table in result.tables for line in (*table.lines(), "")]
    return [f"== {part.name}: {part.question}", *tables, *result.remarks]


def note_of(part: Part, result: Result) -> list[str]:
    """The same in Markdown."""
    lines = [f"## {part.name}: {part.question}", ""]
    for table in result.tables:
        head, *rows = table.cells()
        lines += [table.title, "", *markdown(head, rows, left=[0]), ""]
    return [*lines, *(f"- {remark}" for remark in result.remarks)]


def files_of(result: Result) -> dict[str, str | bytes]:
    """Tables and figures, by their names in the run."""
    tables = {f"tables/{each.name}.csv": each.csv() for each in result.tables}
    drawn = {f"figures/{each.name}.png": picture(each) for each in result.curves if any(each.series.values())}
    return {**tables, **drawn}


if __name__ == "__main__":
    main(sys.argv[1:])
