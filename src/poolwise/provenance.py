"""What decides a result: code, stack, settings and data, and the fingerprints made of them.

Two fits with the same draws fingerprint have the same draws, to the bit, on the same stack; two runs with the same
run fingerprint have the same artifacts.
"""

import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SOURCE = Path(__file__).resolve().parent
DRAW_MODULES = ("data.py", "fit.py", "model.py", "priors.py", "table.py")  # whose text decides the draws
DRAW_LIBRARIES = ("jax", "jaxlib", "numpyro", "numpy")
# what `git apply` reads, however the user likes to see differences
PLAIN_DIFF = (
    *("diff", "--cached", "--binary", "--no-color", "--no-ext-diff", "--no-textconv"),
    *("--src-prefix=a/", "--dst-prefix=b/"),
)
RECORDED_FOLDERS = ("src", "conf", "experiments")  # what a patch holds, and nothing else


@dataclass(frozen=True)
class Code:
    """The state of the source.

    Attributes
    ----------
    state : "clean <commit>", "changed since <commit>", or "no commit" with the digest of the source
    patch : what differs from the commit in `RECORDED_FOLDERS`, untracked files included; applies with `git apply`
    """

    state: str
    commit: str
    branch: str
    patch: str


def code_state(root: Path = SOURCE.parents[1]) -> Code:
    """Commit, branch and patch of the checkout at `root`, or the digest of the source where there is none."""
    top = _git(root, "rev-parse", "--show-toplevel").strip()
    commit = _git(root, "rev-parse", "HEAD").strip()
    if not commit or Path(top) != root:  # an installed package may lie in another project's checkout
        return Code(f"no commit, source {source_digest(SOURCE)[:12]}", "", "", "")
    tracked = _git(root, "ls-tree", "--name-only", "HEAD").split()
    folders = [folder for folder in RECORDED_FOLDERS if folder in tracked or (root / folder).is_dir()]
    patch = _patch(root, folders)
    changed = patch or _git(root, "status", "--porcelain", "--", *folders)
    state = f"changed since {commit[:12]}" if changed else f"clean {commit[:12]}"
    return Code(state, commit, _git(root, "rev-parse", "--abbrev-ref", "HEAD").strip(), patch)


def distributions() -> str:
    """Every installed distribution, `name==version` a line."""
    found = {f"{each.name}=={each.version}" for each in importlib.metadata.distributions()}
    return "\n".join(sorted(found, key=str.lower)) + "\n"


def stack(device: Mapping[str, Any]) -> dict[str, Any]:
    """Everything outside code and settings that may decide the bits of the draws.

    Parameters
    ----------
    device : platform, num_devices, chain_method and x64 as really used
    """
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        **{name: importlib.metadata.version(name) for name in (*DRAW_LIBRARIES, "arviz", "mlflow", "hydra-core")},
        **device,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


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


@functools.cache  # the code of a process is what it was when the process first asked
def source_digest(folder: Path) -> str:
    """A sha256 of the whole package."""
    files = sorted(path for path in folder.rglob("*") if path.suffix in {".py", ".html"})
    return fingerprint({str(path.relative_to(folder)): file_digest(path) for path in files})


@functools.cache
def file_digest(path: Path) -> str:
    """The sha256 of a source file's bytes, as it was when this process first asked."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _patch(root: Path, folders: list[str]) -> str:
    """What differs from the last commit, taken over an index of its own: the checkout's own stays as it is."""
    with tempfile.TemporaryDirectory() as scratch:
        objects = _git(root, "rev-parse", "--path-format=absolute", "--git-path", "objects").strip()
        environment = {
            "GIT_INDEX_FILE": f"{scratch}/index",
            "GIT_OBJECT_DIRECTORY": scratch,
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": objects,
        }
        _git(root, "read-tree", "HEAD", environment=environment)
        _git(root, "add", "--all", "--ignore-errors", "--", *folders, environment=environment)
        return _git(root, *PLAIN_DIFF, "HEAD", "--", *folders, environment=environment)


def _git(root: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
    """What a git command prints; nothing where there is no git, no checkout or no commit."""
    command = ["git", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, check=True, env=os.environ | dict(environment or {}))
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.decode("utf-8", "surrogateescape")


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
