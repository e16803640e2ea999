"""Who may import whom: the table of rooms, held against every import of the source, also those in functions."""

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import poolwise
from poolwise.checks.findings import CHECKS
from poolwise.inference.engines import ENGINES
from poolwise.model.likelihoods import LIKELIHOODS
from poolwise.model.poolings import POOLINGS

SOURCE = Path(poolwise.__file__).parent
FILES = {".".join(path.relative_to(SOURCE).with_suffix("").parts): path for path in sorted(SOURCE.rglob("*.py"))}
TREES = {name.removesuffix(".__init__"): ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}
MODULES = [name for name in TREES if name != "__init__"]

FOUNDATION = {"errors", "garbage", "text", "paths"}  # every room may import these
ROOMS = {  # room: the rooms that it may import
    "counts": set(),
    "model": {"counts"},
    "inference": {"model", "counts"},
    "checks": {"inference", "model", "counts"},
    "figures": {"checks", "inference", "counts"},
    "tracking": set(),
    "config": {"figures", "inference", "model", "tracking"},  # of figures the names, of inference the settings
    "arguments": {"config"},
    "help": {"arguments"},
    "provenance": {"checks", "counts", "inference", "tracking", "config", "model"},
    "report": {"figures", "checks", "inference", "model", "counts", "tracking"},  # of figures the names
    "runs": {
        *("report", "figures", "provenance", "checks", "inference", "model", "counts", "tracking", "config"),
        "arguments",
    },
    "comparison": {"report", "figures", "provenance", "checks", "tracking", "model", "config"},
    "sweeps": {"runs", "comparison", "report", "provenance", "tracking", "config", "arguments"},
    "calibration": {"runs", "report", "figures", "provenance", "inference", "model", "counts", "tracking", "config"},
}
COMMANDS = {"__main__", "run", "compare", "reproduce", "groups", "calibrate", "sync", "ui"}
MOST_LEVELS = 9
LIBRARY_USERS = {  # library: the only rooms and files that import it
    "mlflow": {"tracking"},
    "hydra": {"run", "calibrate", "exit_codes", "sweeps", "runs", "config", "arguments", "help", "paths"},
    "matplotlib": {"figures", "comparison", "calibration"},
    "arviz_plots": {"figures"},
    "numpyro": {"model", "inference", "figures", "calibration"},
}
NO_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "manager"}


def imported(tree: ast.AST) -> Iterator[str]:
    """Dotted names that are imported anywhere in a module, those for type checkers and in functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_of(dotted: str) -> str | None:
    """The module of this package that a dotted name is of."""
    parts = dotted.split(".")[1:] if dotted.startswith("poolwise.") else []
    for size in range(len(parts), 0, -1):
        if ".".join(parts[:size]) in TREES:
            return ".".join(parts[:size])
    return None


def neighbours(name: str) -> set[str]:
    """The modules that a module imports."""
    return {found for each in imported(TREES[name]) if (found := module_of(each))} - {name}


def room_of(module: str) -> str:
    return module.partition(".")[0]


GRAPH = {name: neighbours(name) for name in MODULES}
ROOM_GRAPH: dict[str, set[str]] = {}
for name, needs in GRAPH.items():
    ROOM_GRAPH.setdefault(room_of(name), set()).update(room_of(each) for each in needs)
    ROOM_GRAPH[room_of(name)].discard(room_of(name))


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import a.b, c", ["a.b", "c"]),
        ("from a import b, c as d", ["a.b", "a.c"]),
        ("if TYPE_CHECKING:\n  import a", ["a"]),
        ("def f():\n  import a", ["a"]),
        ("class A:\n  def f(self):\n    from a import b", ["a.b"]),
    ],
)
def test_every_import_is_read(source, names):
    assert list(imported(ast.parse(source))) == names


def test_every_module_is_in_a_room_or_a_command_or_foundation():
    assert {room_of(name) for name in MODULES} == {*ROOMS, *FOUNDATION, *COMMANDS, "exit_codes", "load"} - {"load"}


@pytest.mark.parametrize("room", ROOMS)
def test_room_imports_only_the_rooms_that_it_may(room):
    assert ROOM_GRAPH[room] <= ROOMS[room] | FOUNDATION


@pytest.mark.parametrize("room", ROOMS)
def test_table_of_rooms_allows_nothing_that_is_not_used(room):
    assert ROOMS[room] <= ROOM_GRAPH[room]


def test_foundation_imports_no_room():
    assert all(ROOM_GRAPH[name] <= FOUNDATION for name in FOUNDATION)


def test_nobody_imports_a_command():
    assert {name for name, needs in GRAPH.items() if needs & COMMANDS} == set()


def test_rooms_and_modules_import_each_other_in_no_circle():
    for graph in (ROOM_GRAPH, GRAPH):
        assert list(graphlib.TopologicalSorter(graph).static_order())


def test_rooms_lie_on_few_levels():
    level: dict[str, int] = {}
    for room in graphlib.TopologicalSorter(ROOM_GRAPH).static_order():
        level[room] = 1 + max((level[each] for each in ROOM_GRAPH.get(room, set()) & ROOMS.keys()), default=0)
    assert max(level[room] for room in ROOMS) <= MOST_LEVELS


@pytest.mark.parametrize("library", LIBRARY_USERS)
def test_library_is_imported_only_where_it_belongs(library):
    users = {room_of(name) for name in MODULES if library in {each.partition(".")[0] for each in imported(TREES[name])}}
    assert users <= LIBRARY_USERS[library]
    assert users


@pytest.mark.parametrize(
    ("code", "unused"),
    [
        ("import poolwise.run", "jax mlflow numpy numpyro pandas arviz_stats matplotlib"),
        ("from poolwise import run; sys.argv = ['', '--help']; run.cli()", "jax mlflow numpy pandas matplotlib"),
        ("import poolwise.runs.pipeline", "matplotlib arviz arviz_plots"),  # the answer does not wait for figures
    ],
)
def test_nothing_is_loaded_that_is_not_used(code, unused):
    code = f"import sys; {code}; print(*sorted({{*{unused.split()}}} & sys.modules.keys()), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.split() == []


def test_importing_the_package_loads_none_of_its_modules():
    code = "import sys, poolwise; print(*(name for name in sys.modules if name.startswith('poolwise.')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_no_module_is_a_drawer_for_odds_and_ends():
    assert not {path.stem for path in SOURCE.rglob("*.py")} & NO_NAMES


@pytest.mark.parametrize("name", TREES)
def test_module_says_what_it_is_for(name):
    docstring = ast.get_docstring(TREES[name])
    assert docstring and docstring.splitlines()[0].endswith((".", "?", ";"))


@pytest.mark.parametrize("name", MODULES)
def test_module_refuses_no_input_with_assert(name):
    # python -O takes an assert away; STYLE asks for the project's own errors
    assert not [node.lineno for node in ast.walk(TREES[name]) if isinstance(node, ast.Assert)]


@pytest.mark.parametrize("name", MODULES)
def test_module_has_no_bare_except(name):
    handlers = [node for node in ast.walk(TREES[name]) if isinstance(node, ast.ExceptHandler)]
    assert not [node.lineno for node in handlers if node.type is None]


GENERIC = [name for name in MODULES if not name.startswith(("model.poolings", "model.likelihoods"))]


@pytest.mark.parametrize("name", GENERIC)
def test_generic_code_asks_the_instance_and_not_its_name(name):
    compared = [node for node in ast.walk(TREES[name]) if isinstance(node, ast.Compare | ast.Dict | ast.Subscript)]
    constants = {
        each.value
        for node in compared
        for part in (
            node.keys
            if isinstance(node, ast.Dict)
            else [node.slice]
            if isinstance(node, ast.Subscript)
            else [node.left, *node.comparators]
        )
        if part is not None
        for each in ast.walk(part)
        if isinstance(each, ast.Constant) and isinstance(each.value, str)
    }
    shared = {check.key for check in CHECKS}  # the check `exact` is not the engine of that name
    assert not constants & ({*POOLINGS, *LIKELIHOODS, *ENGINES} - shared)


def test_files_of_tests_have_names_of_their_own():
    # pytest imports them by name, so of two with one name it collects only the first
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]
    assert sorted(names) == sorted({*names})
