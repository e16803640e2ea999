"""Fingerprints."""

import functools
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from poolwise.provenance.stack import DRAW_LIBRARIES

SOURCE = Path(__file__).resolve().parent
# whose text decides the draws
DRAW_MODULES = (
    *("checkpoint.py", "data.py", "fit.py", "integrated.py", "model.py"),
    *("priors.py", "snapshot.py", "special.py", "table.py"),
)


def draw_ingredients(settings: Mapping[str, Any], data_sha256: str) -> dict[str, Any]:
    """What decides the draws, as nested plain values. `settings` is the resolved config."""
    sampler = {key: value for key, value in settings["sampler"].items() if key != "checkpoint_every"}
    device = {key: value for key, value in settings["device"].items() if key != "num_devices"}
    return {
        **{key: settings[key] for key in ("seed", "prior", "pooling", "likelihood")},
        "sampler": sampler,
        "device": device,
        "data_sha256": data_sha256,
        "source": {name: file_digest(SOURCE / name) for name in DRAW_MODULES},
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in DRAW_LIBRARIES},
    }


def run_ingredients(settings: Mapping[str, Any], data_sha256: str) -> dict[str, Any]:
    """What decides a run: its draws, what is made of them, and the rest of the source."""
    return draw_ingredients(settings, data_sha256) | {
        **{key: settings[key] for key in ("checks", "predict", "plots")},
        "all_source": source_digest(SOURCE),
    }


def fingerprint(ingredients: Mapping[str, Any]) -> str:
    """A sha256 that is equal exactly when the ingredients are."""
    return hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()


def posterior_digests(posterior: Mapping[str, np.ndarray]) -> dict[str, str]:
    """A sha256 of the draws of each parameter, and under "all" one of them together."""
    digests = {}
    for name in sorted(posterior):
        draws = np.ascontiguousarray(posterior[name])
        head = f"{name} {draws.dtype.str} {draws.shape} ".encode()
        digests[name] = hashlib.sha256(head + draws.tobytes()).hexdigest()
    return digests | {"all": hashlib.sha256("".join(digests.values()).encode()).hexdigest()}


def source_digest(folder: Path) -> str:
    """A sha256 of the whole package."""
    return fingerprint(source_files(folder))


def source_files(folder: Path) -> dict[str, str]:
    """Every file of the package, relative name -> sha256."""
    return {str(path.relative_to(folder)): file_digest(path) for path in _source_paths(folder)}


@functools.cache  # the code of a process is what it was when the process first asked
def _source_paths(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(path for path in folder.rglob("*") if path.suffix in {".py", ".html"}))


@functools.cache
def file_digest(path: Path) -> str:
    """The sha256 of a source file's bytes, as it was when this process first asked."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
