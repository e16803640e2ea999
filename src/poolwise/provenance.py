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
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from packaging.markers import Marker
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from poolwise.checkout import RECORDED_FOLDERS, not_given_back
from poolwise.text import one_line

SOURCE = Path(__file__).resolve().parent
# whose text decides the draws
DRAW_MODULES = (
    *("checkpoint.py", "data.py", "fit.py", "integrated.py", "model.py"),
    *("priors.py", "snapshot.py", "special.py", "table.py"),
)
DRAW_LIBRARIES = ("jax", "jaxlib", "numpyro", "numpy")
# what `git apply` reads, however the user likes to see differences
PLAIN_DIFF = (
    *("diff", "--cached", "--binary", "--no-color", "--no-ext-diff", "--no-textconv"),
    *("--src-prefix=a/", "--dst-prefix=b/"),
)
USED_SUFFIXES = {  # of the files that a run reads in a recorded folder, git-ignored or not
    "src": (".py", ".html", ".so"),
    "conf": (".yaml",),
    "experiments": (".yaml",),
}
LOCKS = ("requirements.lock", "requirements-ray.lock")  # one of them made the environment
UNLOCKED = {"poolwise", "pip"}  # what every environment has besides its lock
# The keys of the stack that bit-identity is promised on: equal values, equal bits. Not the number of devices or
# cores, nor the libraries that come after the draws.
STACK_OF_BITS = (
    *("python", *DRAW_LIBRARIES),
    *("platform", "device_kind", "cpu", "x64", "chain_method", "xla_flags", "jax_flags"),
)
JAX_FLAGS = (  # the settings of JAX that may change a bit: of the random numbers, of the arithmetic, of the program
    *("jax_default_prng_impl", "jax_enable_custom_prng", "jax_random_seed_offset", "jax_high_dynamic_range_gumbel"),
    *("jax_threefry_partitionable", "jax_threefry_gpu_kernel_lowering"),
    *("jax_default_matmul_precision", "jax_numpy_dtype_promotion", "jax_explicit_x64_dtypes", "jax_accurate_erf_inv"),
    *("jax_use_hlo_logistic_lowering", "jax_use_direct_linearize", "jax_compiler_enable_remat_pass"),
    *("jax_disable_jit", "jax_disable_most_optimizations", "jax_optimization_level"),
)


@dataclass(frozen=True)
class Lock:
    """The lock file that the environment was made from, told by what is installed.

    Attributes
    ----------
    name : the lock with the fewest departures, or nothing where there is no lock
    sha256 : of its bytes
    changed : its text, if it is not the one of the commit
    departures : "name==version" that is installed and not locked so, "no name==version" that is locked and not there
    """

    name: str = ""
    sha256: str = ""
    changed: str = ""
    departures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Code:
    """The state of the source.

    Attributes
    ----------
    state : "clean <commit>", "changed since <commit>", or "no commit" with the digest of the source; where commit and
        patch do not give the code back, "changed since" says so and why
    patch : what differs from the commit in `RECORDED_FOLDERS`, untracked files included; applies with `git apply`
    files : every file of the package that runs, relative name -> sha256
    """

    state: str
    commit: str
    branch: str
    patch: str
    files: Mapping[str, str] = field(default_factory=dict)
    lock: Lock = Lock()


def code_state(root: Path = SOURCE.parents[1]) -> Code:
    """Commit, branch and patch of the checkout at `root`, or the digest of the source where there is none."""
    files = source_files(SOURCE)
    top = _git(root, "rev-parse", "--show-toplevel").strip()
    commit = _git(root, "rev-parse", "HEAD").strip()
    if not commit or Path(top) != root:  # an installed package may lie in another project's checkout
        return Code(f"no commit, source {fingerprint(files)[:12]}", "", "", "", files, _lock(root, ""))
    tracked = _git(root, "ls-tree", "--name-only", "HEAD").split()
    folders = [folder for folder in RECORDED_FOLDERS if folder in tracked or (root / folder).is_dir()]
    patch, not_added = _patch(root, folders)
    changed = bool(patch or not_added or _git(root, "status", "--porcelain", "--", *folders))
    lost = _lost(root, folders, not_added) or (not_given_back(root, folders, commit, patch) if changed else [])
    state = f"changed since {commit[:12]}" if changed or lost else f"clean {commit[:12]}"
    if lost:
        more = f" (and {len(lost) - 1} more)" if len(lost) > 1 else ""
        state += f", and the patch does not give this code back: {lost[0]}{more}"
    branch = _git(root, "rev-parse", "--abbrev-ref", "HEAD").strip()
    return Code(state, commit, branch, patch, files, _lock(root, commit))


@functools.cache  # what a process imports does not change under it
def distributions() -> str:
    """Every installed distribution, `name==version` a line."""
    found = {f"{each.name}=={each.version}" for each in importlib.metadata.distributions()}
    return "\n".join(sorted(found, key=str.lower)) + "\n"


def versions_of(text: str) -> dict[str, str]:
    """Name, in the spelling of the package index, -> version, of every pinned line of a requirements file or a lock."""
    return {name: version for name, version, _ in _pins(text)}


def stack(device: Mapping[str, Any]) -> dict[str, Any]:
    """Everything outside code and settings that may decide the bits of the draws; starts JAX if nobody did.

    Parameters
    ----------
    device : platform, num_devices, chain_method and x64 as really used
    """
    import jax  # here: who only compares records needs no JAX

    devices = jax.devices()[: device.get("num_devices")]
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        **{name: importlib.metadata.version(name) for name in (*DRAW_LIBRARIES, "arviz", "mlflow", "hydra-core")},
        **device,
        "devices": [str(each) for each in devices],
        "device_kind": ", ".join(sorted({each.device_kind for each in devices})),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "jax_flags": {name: _plain(jax.config.values[name]) for name in JAX_FLAGS if name in jax.config.values},
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


def _patch(root: Path, folders: list[str]) -> tuple[str, list[str]]:
    """What differs from the last commit, and the names that git cannot add to that.

    Taken over an index of its own: the checkout's own stays as it is.
    """
    with tempfile.TemporaryDirectory() as scratch:
        objects = _git(root, "rev-parse", "--path-format=absolute", "--git-path", "objects").strip()
        environment = {
            "GIT_INDEX_FILE": f"{scratch}/index",
            "GIT_OBJECT_DIRECTORY": scratch,
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": objects,
        }
        _git(root, "read-tree", "HEAD", environment=environment)
        add = ("-c", "core.autocrlf=false", "add", "--all", "--ignore-errors")  # every byte as it is
        _git(root, *add, "--", *folders, environment=environment)
        not_added = _others(root, folders, environment=environment)
        return _git(root, *PLAIN_DIFF, "HEAD", "--", *folders, environment=environment), not_added


def _others(root: Path, folders: list[str], *which: str, environment: Mapping[str, str] | None = None) -> list[str]:
    """Files that are in no index, less those that git is told to ignore; or `which`."""
    listing = ("ls-files", "--others", "--exclude-standard", "-z", *which, "--", *folders)
    return [name for name in _git(root, *listing, environment=environment).split("\0") if name]


def _lost(root: Path, folders: list[str], not_added: list[str]) -> list[str]:
    """What a run may read and no patch holds, each in words."""
    ignored = [name for name in _others(root, folders, "--ignored") if _is_used(Path(name))]
    reasons = [f"{one_line(name.rstrip('/'))} is ignored by git" for name in ignored]
    return reasons + [f"{one_line(name.rstrip('/'))} cannot be added" for name in not_added]


def _is_used(path: Path) -> bool:
    """Whether a run reads a file of this name: no cache, and nothing in a hidden folder."""
    hidden = any(part.startswith((".", "__pycache__")) for part in path.parts)
    return path.suffix in USED_SUFFIXES[path.parts[0]] and not hidden


def _lock(root: Path, commit: str) -> Lock:
    """The lock at `root` that is nearest to what is installed."""
    texts = {name: (root / name).read_bytes() for name in LOCKS if (root / name).is_file()}
    locks = [_compared(root, commit, name, content) for name, content in texts.items()]
    return min(locks, key=lambda lock: len(lock.departures), default=Lock())


def _compared(root: Path, commit: str, name: str, content: bytes) -> Lock:
    text = content.decode("utf-8", "surrogateescape")
    committed = _git(root, "show", f"{commit}:{name}") if commit else ""
    return Lock(
        name=name,
        sha256=hashlib.sha256(content).hexdigest(),
        changed="" if text == committed else text,
        departures=_departures(text),
    )


def _departures(lock: str) -> tuple[str, ...]:
    """What is installed otherwise than in a lock. Pins with a condition may be missing: they may be for elsewhere."""
    installed = {name: version for name, version in versions_of(distributions()).items() if name not in UNLOCKED}
    pins = list(_pins(lock))
    locked = {(name, version) for name, version, _ in pins}
    more = [f"{name}=={version}" for name, version in installed.items() if (name, version) not in locked]
    less = [f"no {name}=={version}" for name, version, marker in pins if not marker and name not in installed]
    return (*sorted(more), *sorted(less))


def _pins(text: str) -> Iterator[tuple[str, str, Marker | None]]:
    """Name, version and condition of every pinned line; comments, hashes and options are none."""
    for line in text.splitlines():
        with suppress(InvalidRequirement):
            found = Requirement(re.split(r"\s+(?:#|--|\\)|\\", line)[0])
            versions = [each.version for each in found.specifier if each.operator == "=="]
            yield from ((canonicalize_name(found.name), version, found.marker) for version in versions)


def _plain(value: Any) -> Any:
    """A setting as JSON has it."""
    return value if value is None or type(value) in {bool, int, str} else str(value)


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
