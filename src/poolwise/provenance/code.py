"""The running source: its commit, its differences from the commit, and the lock of its environment."""

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from poolwise.provenance.checkout import RECORDED_FOLDERS, not_given_back
from poolwise.provenance.fingerprints import SOURCE, fingerprint, source_files
from poolwise.provenance.stack import distributions, pins, versions_of
from poolwise.text import one_line

# a format that `git apply` reads, whatever the user's settings for diffs
PLAIN_DIFF = (
    *("diff", "--cached", "--binary", "--no-color", "--no-ext-diff", "--no-textconv"),
    *("--src-prefix=a/", "--dst-prefix=b/"),
)
USED_SUFFIXES = {  # of the files that a run reads in a recorded folder, whether git ignores them or not
    "src": (".py", ".html", ".so"),
    "conf": (".yaml",),
    "experiments": (".yaml",),
}
LOCKS = ("requirements.lock", "requirements-ray.lock")  # the environment was built from one of them
UNLOCKED = {"poolwise", "pip"}  # in every environment, but not in its lock


@dataclass(frozen=True)
class Lock:
    """The lock file of the environment, inferred from the installed distributions.

    Attributes
    ----------
    name : the lock with the fewest departures, or empty if there is no lock
    sha256 : of its bytes
    changed : its text, if it differs from that of the commit
    departures : "name==version" if installed but not locked, "no name==version" if locked but not installed
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
    state : "clean <commit>", "changed since <commit>", or "no commit" with the digest of the source; if commit and
        patch do not restore the code, "changed since" is followed by the reason
    patch : differences from the commit in `RECORDED_FOLDERS`, with untracked files; applies with `git apply`
    files : every file of the running package, relative name -> sha256
    """

    state: str
    commit: str
    branch: str
    patch: str
    files: Mapping[str, str] = field(default_factory=dict)
    lock: Lock = Lock()


def code_state(root: Path = SOURCE.parents[1]) -> Code:
    """Commit, branch and patch of the checkout at `root`, or the digest of the source if it is not a checkout."""
    files = source_files(SOURCE)
    top = _git(root, "rev-parse", "--show-toplevel").strip()
    commit = _git(root, "rev-parse", "HEAD").strip()
    if not commit or Path(top) != root:  # an installed package may be inside the checkout of another project
        return Code(f"no commit, source {fingerprint(files)[:12]}", "", "", "", files, _lock(root, ""))
    tracked = _git(root, "ls-tree", "--name-only", "HEAD").split()
    folders = [folder for folder in RECORDED_FOLDERS if folder in tracked or (root / folder).is_dir()]
    patch, not_added = _patch(root, folders)
    changed = bool(patch or not_added or _git(root, "status", "--porcelain", "--", *folders))
    lost = _lost(root, folders, not_added) or (not_given_back(root, folders, commit, patch) if changed else [])
    state = f"changed since {commit[:12]}" if changed or lost else f"clean {commit[:12]}"
    if lost:
        more = f" (and {len(lost) - 1} more)" if len(lost) > 1 else ""
        state += f", and the patch does not restore this code: {lost[0]}{more}"
    branch = _git(root, "rev-parse", "--abbrev-ref", "HEAD").strip()
    return Code(state, commit, branch, patch, files, _lock(root, commit))


def _patch(root: Path, folders: list[str]) -> tuple[str, list[str]]:
    """The differences from the last commit, and the names of files that git cannot add to them.

    Uses a temporary index: the index of the checkout is not changed.
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
    """Untracked files that git does not ignore; or those selected by `which`."""
    listing = ("ls-files", "--others", "--exclude-standard", "-z", *which, "--", *folders)
    return [name for name in _git(root, *listing, environment=environment).split("\0") if name]


def _lost(root: Path, folders: list[str], not_added: list[str]) -> list[str]:
    """The files that a run may read and that the patch lacks, each with the reason."""
    ignored = [name for name in _others(root, folders, "--ignored") if _is_used(Path(name))]
    reasons = [f"{one_line(name.rstrip('/'))} is ignored by git" for name in ignored]
    return reasons + [f"{one_line(name.rstrip('/'))} cannot be added" for name in not_added]


def _is_used(path: Path) -> bool:
    """Whether a run may read a file of this name; caches and hidden folders are excluded."""
    hidden = any(part.startswith((".", "__pycache__")) for part in path.parts)
    return path.suffix in USED_SUFFIXES[path.parts[0]] and not hidden


def _lock(root: Path, commit: str) -> Lock:
    """The lock at `root` that is closest to the installed distributions."""
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
    """How the installed distributions differ from a lock. Pins with a marker may be missing here."""
    installed = {name: version for name, version in versions_of(distributions()).items() if name not in UNLOCKED}
    pinned = list(pins(lock))
    locked = {(name, version) for name, version, _ in pinned}
    more = [f"{name}=={version}" for name, version in installed.items() if (name, version) not in locked]
    less = [f"no {name}=={version}" for name, version, marker in pinned if not marker and name not in installed]
    return (*sorted(more), *sorted(less))


def _git(root: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
    """The output of a git command; empty if there is no git, checkout or commit."""
    command = ["git", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, check=True, env=os.environ | dict(environment or {}))
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.decode("utf-8", "surrogateescape")
