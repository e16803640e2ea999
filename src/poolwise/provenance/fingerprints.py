"""Settings, data and source to the fingerprints of a run.

On the same stack, two fits with the same draws fingerprint have bit-identical draws; two runs with the same run
fingerprint have the same artifacts. The source that decides draws is the engine, pooling and likelihood of the fit, the
checkpoints, and all that these import. Its syntax tree is hashed: a change of docstrings, comments or words of a
plug-in causes no refit.
"""

import ast
import functools
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from poolwise.inference.engines import ENGINES
from poolwise.inference.engines.base import Engine
from poolwise.model.likelihoods import EVERY_LIKELIHOOD, likelihood_of
from poolwise.model.poolings import EVERY_POOLING, pooling_of
from poolwise.provenance.stack import DRAW_LIBRARIES

SOURCE = Path(__file__).resolve().parents[1]
EARLIER = (  # names in records of 0.1.0 of the files that decided draws
    *("checkpoint.py", "data.py", "fit.py", "integrated.py", "model.py"),
    *("priors.py", "snapshot.py", "special.py", "table.py"),
)
HANDED_ON_BY = ("poolwise.inference.checkpoint",)  # passes the draws of an interrupted fit to the resumed one
WORDS = {"meaning", "formula", "new_group_words", "rate_symbol", "whose_rate", "short"}  # of a plug-in
SITE_WORDS = {"symbol": 1, "meaning": 2}  # arguments of `model.sites.Site`


def draw_ingredients(settings: Mapping[str, Any], data_sha256: str) -> dict[str, Any]:
    """All inputs that decide the draws, as nested plain values. `settings` is the resolved config."""
    sampler = {key: value for key, value in settings["sampler"].items() if key != "checkpoint_every"}
    device = {key: value for key, value in settings["device"].items() if key != "num_devices"}
    return {
        **{key: settings[key] for key in ("seed", "prior", "pooling", "likelihood")},
        "sampler": sampler,
        "device": device,
        "data_sha256": data_sha256,
        "source": draw_source(settings),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in DRAW_LIBRARIES},
    }


def run_ingredients(settings: Mapping[str, Any], data_sha256: str) -> dict[str, Any]:
    """All inputs that decide a run: those of its draws, its checks, predictions and plots, and the whole source."""
    return draw_ingredients(settings, data_sha256) | {
        **{key: settings[key] for key in ("checks", "predict", "plots")},
        "all_source": source_digest(SOURCE),
    }


def draw_source(settings: Mapping[str, Any]) -> dict[str, str]:
    """The files that decide the draws of these settings, relative name -> sha256 of the parsed file."""
    pooling, likelihood = settings["pooling"], settings["likelihood"]
    noise = likelihood_of(likelihood["name"], likelihood.get("overdispersion"))
    groups = pooling_of(pooling["name"], pooling.get("population"))
    plug_ins = [ENGINES[settings["sampler"]["name"]], groups, noise, *noise.made_of]
    return imported_source([*map(module_of, plug_ins), *HANDED_ON_BY])


def module_of(plug_in: Any) -> str:
    """The module that defines a plug-in."""
    return str((plug_in.sample if isinstance(plug_in, Engine) else type(plug_in)).__module__)


def imported_source(modules: Iterable[str]) -> dict[str, str]:
    """These modules and those of the package that they import, without lists of plug-ins; name -> sha256."""
    return dict(_imported_source(SOURCE, tuple(modules)))


@functools.cache  # the code of a process does not change after the first call
def _imported_source(source: Path, modules: tuple[str, ...]) -> Mapping[str, str]:
    found: dict[str, str] = {}
    waiting = list(modules)
    while waiting:
        path = source.joinpath(*waiting.pop().split(".")[1:]).with_suffix(".py")
        name = path.relative_to(source).as_posix()
        if path.is_file() and name not in found:
            digest, imported = _parsed(path)
            found[name] = digest
            waiting += imported
    return dict(sorted(found.items()))


def decides_draws(name: str) -> bool:
    """Whether a file of the package may decide draws of some model."""
    return name in _all_draw_source() or name in EARLIER


def is_whole(files: Iterable[str]) -> bool:
    """Whether a record has all files of the package; the oldest have some of those that decide draws, or none."""
    return not all(map(decides_draws, files))


def holds_draw_source(files: Iterable[str]) -> bool:
    """Whether these include all files that decide draws."""
    return set(files) >= set(EARLIER) or set(files) >= _all_draw_source()


@functools.cache
def _all_draw_source() -> frozenset[str]:
    plug_ins = [*ENGINES.values(), *EVERY_POOLING, *EVERY_LIKELIHOOD]
    return frozenset(imported_source([*map(module_of, plug_ins), *HANDED_ON_BY]))


@functools.cache  # the code of a process does not change after the first call
def _parsed(path: Path) -> tuple[str, tuple[str, ...]]:
    """A sha256 of the parsed file, and the modules of the package that it imports."""
    tree = ast.parse(path.read_bytes())
    imported = [
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("poolwise")
        for name in (str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names))
    ]
    meaning = ast.dump(_Meaning().visit(tree))
    return hashlib.sha256(meaning.encode()).hexdigest(), tuple(imported)


class _Meaning(ast.NodeTransformer):
    """Removes docstrings and the words of plug-ins from a parsed file."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        """Remove a string expression: it has no effect."""
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            return None
        return self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        """Remove words assigned in the body of a class; local variables of the same names are kept."""
        node.body = [each for each in node.body if not _is_words(each)]
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Remove the words of a `Site`, which follow its name."""
        if isinstance(node.func, ast.Name) and node.func.id == "Site":
            node.args = [each for place, each in enumerate(node.args) if place not in SITE_WORDS.values()]
            node.keywords = [each for each in node.keywords if each.arg not in SITE_WORDS]
        return self.generic_visit(node)


def _is_words(node: ast.stmt) -> bool:
    """Whether a statement assigns only words of a plug-in, and possibly its name, which is in the settings."""
    if not isinstance(node, ast.Assign | ast.AnnAssign):
        return False
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    names = {each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)}
    return names <= WORDS | {"name"} and bool(names & WORDS)


def fingerprint(ingredients: Mapping[str, Any]) -> str:
    """A sha256 that is equal if and only if the ingredients are."""
    return hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()


def posterior_digests(posterior: Mapping[str, np.ndarray]) -> dict[str, str]:
    """A sha256 of the draws of each parameter, and one of all together under "all"."""
    digests = {}
    for name in sorted(posterior):
        draws = np.ascontiguousarray(posterior[name])
        head = f"{name} {draws.dtype.str} {draws.shape} ".encode()
        digests[name] = hashlib.sha256(head + draws.tobytes()).hexdigest()
    return digests | {"all": hashlib.sha256("".join(digests.values()).encode()).hexdigest()}


@functools.cache
def source_digest(folder: Path) -> str:
    """A sha256 of the whole package."""
    return fingerprint(source_files(folder))


def source_files(folder: Path) -> dict[str, str]:
    """Every file of the package, relative name -> sha256."""
    return {str(path.relative_to(folder)): file_digest(path) for path in _source_paths(folder)}


@functools.cache  # the code of a process does not change after the first call
def _source_paths(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(path for path in folder.rglob("*") if path.suffix in {".py", ".html"}))


@functools.cache
def file_digest(path: Path) -> str:
    """The sha256 of a source file's bytes at the first call in this process."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
