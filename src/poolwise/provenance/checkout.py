"""A commit and a patch to files: a temporary checkout.

It uses only the objects of a repository: no branch, index, worktree entry, hook or setting of the user. So the files
are the same for every user, and nothing is left in the repository even after a kill. The patch may come from a
tracking server: it is applied to the index, and the changed entries are checked before any file is written.
"""

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from poolwise.errors import RequestError
from poolwise.text import one_line

RECORDED_FOLDERS = ("src", "conf", "experiments")  # the only folders that a patch may change
COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")  # SHA-1 or SHA-256; neither an option nor a path
SPECIAL_MODES = {"120000": "a symbolic link", "160000": "a repository of its own"}  # modes of index entries


class CheckoutError(RequestError):
    """A commit with its patch cannot be checked out; `reason` is a short form of the message."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason or message


@contextmanager
def checkout(root: Path, commit: str, patch: str) -> Iterator[Path]:
    """A temporary checkout of a commit of the repository at `root`, with a patch applied.

    Parameters
    ----------
    commit : its full id; it need not be on a branch
    patch : as in `code.Code`, or empty; undecodable bytes as surrogates

    Raises
    ------
    CheckoutError
        if git or the commit is missing, or the patch does not apply or is not one that a run records.
    """
    if not COMMIT.fullmatch(commit):
        raise CheckoutError(f"{commit!r} is not a commit id. Give its 40 (or 64) hex digits.")
    with tempfile.TemporaryDirectory(prefix="poolwise-", ignore_cleanup_errors=True) as scratch:
        place = Path(scratch).resolve()
        _borrow(root, place, commit)
        _apply(place, commit, patch)
        _write(place, commit)
        yield place


def not_given_back(root: Path, folders: Sequence[str], commit: str, patch: str) -> list[str]:
    """The files that commit and patch do not restore as they are at `root`; ignores files that only `root` has."""
    try:
        with checkout(root, commit, patch) as again:
            paths = [path for folder in folders for path in sorted((again / folder).rglob("*"))]
            names = [path.relative_to(again) for path in paths if path.is_symlink() or not path.is_dir()]
            return [f"{one_line(str(name))} differs" for name in names if not _is_same(root / name, again / name)]
    except CheckoutError as error:
        return [error.reason]


def _is_same(one: Path, other: Path) -> bool:
    """Whether two files have the same bytes, or two links the same target."""
    try:
        if one.is_symlink() or other.is_symlink():
            return one.readlink() == other.readlink()
        return one.read_bytes() == other.read_bytes()
    except OSError:
        return False


def _borrow(root: Path, place: Path, commit: str) -> None:
    """Create a repository at `place` with the objects of that at `root`, and the commit as its head and index."""
    found = _git(root, "rev-parse", "--path-format=absolute", "--git-path", "objects", as_user=True)
    if found.returncode:
        raise CheckoutError(
            f"{root} is not a readable git repository ({_first_line(found)}). "
            f"Run this command in a clone that has commit {commit[:12]}."
        )
    kind = () if len(commit) == 40 else ("--object-format=sha256",)
    _must(_git(place, "init", "--quiet", "--template=", *kind), commit)
    information = place / ".git" / "objects" / "info"
    information.mkdir(exist_ok=True)
    (information / "alternates").write_bytes(found.stdout.rstrip(b"\n") + b"\n")
    if _git(place, "cat-file", "-e", f"{commit}^{{commit}}").returncode:
        raise CheckoutError(f"{root} has no commit {commit}. Fetch it: git fetch origin {commit}")
    _must(_git(place, "update-ref", "--no-deref", "HEAD", commit), commit)
    _must(_git(place, "read-tree", commit), commit)


def _apply(place: Path, commit: str, patch: str) -> None:
    """Apply the patch to the index; refuse one that changes anything except files in the recorded folders."""
    if not patch:
        return
    content = patch.encode("utf-8", "surrogateescape")
    done = _git(place, "apply", "--cached", "--whitespace=nowarn", "-", content=content)
    if done.returncode:
        raise CheckoutError(
            f"the patch does not apply to commit {commit[:12]} ({_first_line(done)}). "
            "It is damaged, or belongs to another commit; take both from the same run.",
            f"it does not apply ({_first_line(done)})",
        )
    for mode, name in _changed(place, commit):
        folder, _, rest = name.partition("/")
        outside = f"outside {', '.join(RECORDED_FOLDERS)}" if folder not in RECORDED_FOLDERS or not rest else ""
        if wrong := outside or SPECIAL_MODES.get(mode, ""):
            raise CheckoutError(
                f"the patch to commit {commit[:12]} changes {one_line(name)}, which is {wrong}. "
                "No run records such a patch, so it was not applied; read it before you use it in another way.",
                f"{one_line(name)} is {wrong}",
            )


def _changed(place: Path, commit: str) -> Iterator[tuple[str, str]]:
    """New mode and path of every index entry that differs from the commit; a rename gives two."""
    done = _must(_git(place, "diff-index", "--cached", "--raw", "-z", commit), commit)
    fields = done.stdout.decode("utf-8", "surrogateescape").split("\0")
    for head, name in zip(fields[0:-1:2], fields[1::2], strict=True):  # ":100644 100755 <id> <id> M", path
        yield head.split()[1], name


def _write(place: Path, commit: str) -> None:
    """Write the files of the index; `checkout-index` runs no hook."""
    _must(_git(place, "checkout-index", "--all", "--quiet"), commit)


def _must(done: subprocess.CompletedProcess[bytes], commit: str) -> subprocess.CompletedProcess[bytes]:
    """The result of a git command; raises if it failed."""
    if done.returncode:
        raise CheckoutError(
            f"commit {commit[:12]} cannot be checked out ({_first_line(done)}). "
            "Fetch it again, or make a new clone of the project."
        )
    return done


def _git(
    place: Path, *arguments: str, content: bytes = b"", as_user: bool = False
) -> subprocess.CompletedProcess[bytes]:
    """Run git without settings, or with those of the user, which may declare a repository safe."""
    nothing = ("core.hooksPath", "core.attributesFile")
    settings = () if as_user else [part for name in nothing for part in ("-c", f"{name}={os.devnull}")]
    command = ["git", "-C", str(place), *settings, *arguments]
    try:
        return subprocess.run(command, input=content, capture_output=True, check=False, env=_environment(as_user))
    except FileNotFoundError:
        raise CheckoutError("git is not installed; it is needed to check out the code. Install git.") from None


def _environment(as_user: bool) -> dict[str, str]:
    """Environment for git: English messages, no repository, index or objects from the caller's environment."""
    kept = ("GIT_EXEC_PATH", "GIT_CONFIG") if as_user else ("GIT_EXEC_PATH",)
    plain = {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or name.startswith(kept)}
    none = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_ATTR_NOSYSTEM": "1"}
    return plain | ({} if as_user else none) | {"LC_ALL": "C"}


def _first_line(done: subprocess.CompletedProcess[bytes]) -> str:
    lines = done.stderr.decode("utf-8", "backslashreplace").splitlines()
    first = next((line for line in lines if line.strip()), f"git exited with {done.returncode}")
    return first.removeprefix("error: ").removeprefix("fatal: ")
