"""Who may import whom, read from the source with `ast`: the rules of the layout, held."""

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

import poolwise

SOURCE = Path(poolwise.__file__).parent
TREES = {path.stem: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(SOURCE.glob("*.py"))}
MODULES = [name for name in TREES if name != "__init__"]

DRAWN = {  # the pictures of a run, by subject
    *("figures_data", "figures_model", "figures_prior", "figures_sensitivity", "figures_posterior"),
    *("figures_predictive", "figures_statistics", "figures_left_out", "figures_new"),
}
SHARED = {"figures_fit", "figures_numbers", "figures_style", "figures_words"}  # what pictures are drawn with

LIBRARY_USERS = {  # library: the modules that may import it
    "mlflow": {"tracking", "store", "spool"},
    "hydra": {"run", "sweep", "sweep_request", "rerun", "calibrate", "exit_codes"},
    "omegaconf": {"run", "sweep", "sweep_request", "config", "paths", "rerun", "calibrate"},
    "matplotlib": {
        "figures",
        "comparison_figures",
        *DRAWN,
        "figures_fit",
        "figures_style",
        "figures_words",
        "figures_calibration",
    },
    "pandas": {
        *("data", "table", "checks", "predict", "figures", "report", "comparison", "comparison_figures"),
        *("record", "words", "artifacts", "pipeline", "comparison_pipeline", "judgement", "evidence", "checks_base"),
        *("sbc", "calibration_findings", "calibration_words", "figures_calibration"),
        *("explore", "findings", "oracle", "sensitivity", "report_words", "figures_fit", *DRAWN),
    },
}
LEAVES = {  # module: the modules of this package that it may import
    "errors": set(),
    "text": set(),
    "paths": set(),
    "exit_codes": {"config", "errors"},
    "credentials": set(),
    "files": set(),
    "interrupts": set(),
    "table": {"errors"},
    "data": {"errors", "table"},
    "priors": {"errors"},
    "special": set(),
    "integrated": {"special"},
    "model": {"errors", "integrated", "priors", "special"},
    "laws": set(),
    "quadrature": set(),
    "exact_factors": {"laws", "quadrature"},
    "exact_nodes": {"exact_factors", "quadrature"},
    "exact": {"errors", "data", "model", "exact_factors", "exact_nodes", "quadrature"},
    "oracle": {"checks", "exact", "judgement"},
    "prior_scale": {"data", "laws", "model"},
    "sensitivity": {"checks", "model", "predict", "priors"},
    "leave_out": {"checks", "data", "fit", "integrated", "model", "predict", "priors", "special"},
    "checks": {"errors"},
    "explore": set(),
    "figures_words": set(),
    "figures_numbers": set(),
    "figures_fit": {"figures_words"},
    "figures_style": {"figures_words"},
    **{name: {"explore", *SHARED} for name in DRAWN},
    "figures": {*DRAWN, "figures_fit", "figures_style"},
    "report_words": set(),
    "report": {"report_words"},
    "snapshot": {"errors"},
    "fit": {"errors", "data", "model", "snapshot"},
    "checkpoint": {"snapshot"},
    "checkout": {"errors", "text"},
    "differences": {"config", "provenance", "text"},
    "judgement": {"checks", "differences", "text"},
    "sbc": set(),
    "simulated": {"data", "model"},
    "recovery": {"checkpoint", "data", "fit", "model", "sbc", "simulated", "snapshot", "special"},
}
COMMANDS = ("run", "compare", "reproduce", "calibrate", "sync", "ui")
NO_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "manager"}


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def statements(nodes: Iterable[ast.AST], *, deferred: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """The imports that run, without those for type checkers; those within functions only if `deferred`."""
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif is_type_checking(node):
            yield from statements(node.orelse, deferred=deferred)
        elif deferred or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from statements(ast.iter_child_nodes(node), deferred=deferred)


def imported(tree: ast.AST, *, deferred: bool = True) -> Iterator[str]:
    """Dotted names that are imported; `from poolwise import fit` gives poolwise.fit, a relative import likewise."""
    for each in statements([tree], deferred=deferred):
        if isinstance(each, ast.Import):
            yield from (alias.name for alias in each.names)
        else:
            module = ".".join(filter(None, ["poolwise" if each.level else "", each.module]))
            yield from (f"{module}.{alias.name}" for alias in each.names)


def libraries(name: str) -> set[str]:
    return {each.partition(".")[0] for each in imported(TREES[name])}


def neighbours(name: str, *, deferred: bool = True) -> set[str]:
    """The modules of this package that a module imports."""
    dotted = [each.split(".") for each in imported(TREES[name], deferred=deferred)]
    return {parts[1] for parts in dotted if parts[0] == "poolwise" and len(parts) > 1} & set(MODULES)


@pytest.mark.parametrize(
    ("source", "deferred", "names"),
    [
        ("import a.b, c", False, ["a.b", "c"]),
        ("from a import b, c as d", False, ["a.b", "a.c"]),
        ("from . import b\nfrom .c import d", False, ["poolwise.b", "poolwise.c.d"]),
        ("if TYPE_CHECKING:\n  import a\nelse:\n  import b", True, ["b"]),
        ("def f():\n  import a\nimport b", False, ["b"]),
        ("class A:\n  def f(self):\n    import a", True, ["a"]),
        ("try:\n  import a\nexcept ImportError:\n  pass", False, ["a"]),
    ],
)
def test_imports_are_read_as_they_run(source, deferred, names):
    assert list(imported(ast.parse(source), deferred=deferred)) == names


@pytest.mark.parametrize("library", LIBRARY_USERS)
def test_library_is_imported_only_where_it_belongs(library):
    assert {name for name in TREES if library in libraries(name)} <= LIBRARY_USERS[library]


@pytest.mark.parametrize("library", LIBRARY_USERS)
def test_library_with_a_rule_is_still_in_use(library):
    assert any(library in libraries(name) for name in TREES)


@pytest.mark.parametrize("name", LEAVES)
def test_leaf_imports_no_other_module_than_it_may(name):
    assert neighbours(name) <= LEAVES[name]


@pytest.mark.parametrize("name", ["data", "model", "fit", "config", "tracking"])
def test_module_that_must_not_know_its_caller_does_not_import_the_pipeline(name):
    assert not neighbours(name) & {"pipeline", "run"}


@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_imported_by_nobody(command):
    assert [name for name in MODULES if command in neighbours(name)] == []


def test_modules_import_each_other_in_no_circle():
    remaining = {name: neighbours(name, deferred=False) for name in MODULES}
    while free := [name for name, needs in remaining.items() if not needs & remaining.keys()]:
        for name in free:
            del remaining[name]
    assert remaining == {}


def test_composing_a_config_loads_neither_jax_nor_mlflow():
    code = (
        "import sys, poolwise.run; print(*sorted({'jax', 'mlflow', 'numpyro', 'pandas', 'arviz'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


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
