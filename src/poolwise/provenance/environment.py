"""The recorded distributions of a run to a Python that has them: this one, or one built from the run's lock.

A built environment is kept and reused. It contains the distributions of the lock only; the code to run is added by
PYTHONPATH. A run comes from a tracking server, so its lock must not name another source of distributions: only those
configured for pip here are used.
"""

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from poolwise.errors import RequestError
from poolwise.provenance import code, stack
from poolwise.tracking.locks import exclusive_lock

PYTHON_VERSION = re.compile(r"\d+\.\d+\.\d+(?:(?:a|b|rc)\d+)?\+?")  # as returned by platform.python_version()
LOCK_LINE = re.compile(  # a pinned name, possibly with a marker; or a hash
    r"[A-Za-z0-9][\w.-]*(?:\[[\w, .-]*\])?==[\w.!+]+\s*(?:;[\w\s.'\"()<>=!~,+]*)?\\?|--hash=[\w:]+\s*\\?", re.ASCII
)
PROBE = "import ensurepip, platform, sqlite3, ssl, venv; print(platform.python_version())"


class EnvironmentMissing(RequestError):
    """No environment with the recorded distributions is available, and none could be built."""


def python_of(requirements: str, *, lock: bytes, python: str, folder: Path) -> Path:
    """The Python of an environment with the recorded distributions: this one, or one built from the lock.

    Parameters
    ----------
    requirements : every distribution of the run, `name==version` per line
    lock : the hash-locked requirements that its environment was built from
    python : the version of its Python
    folder : of built environments, one for each lock and Python

    Raises
    ------
    EnvironmentMissing
        if that Python is not installed, or the lock is empty, invalid or cannot be installed.
    """
    if python == platform.python_version() and _compared(requirements) == _compared(stack.distributions()):
        return Path(sys.executable)
    if not PYTHON_VERSION.fullmatch(python):
        raise EnvironmentMissing(
            f"{python!r} is not a version of Python. The record of the run is damaged; name another run."
        )
    pins = _pins(lock)
    place = folder.resolve() / f"{hashlib.sha256(lock).hexdigest()[:12]}-{python}"
    with exclusive_lock(place.with_name(f"{place.name}.lock"), otherwise=f"another process is building {place}"):
        if not ((place / "ready").exists() and _python(place).exists()):
            _build(place, pins, interpreter(python))
    return _python(place)


def interpreter(version: str) -> str:
    """An interpreter of exactly this version that can create environments.

    Raises
    ------
    EnvironmentMissing
        if there is none in the places that are searched.
    """
    for candidate in _candidates(version):
        try:
            done = subprocess.run([candidate, "-c", PROBE], capture_output=True, text=True, check=False, env=_plain())
        except OSError:
            continue
        if done.returncode == 0 and done.stdout.strip() == version:  # a shim on PATH may fail, or start another
            return candidate
    raise EnvironmentMissing(
        f"the run used Python {version}, which is not installed here. Install it: "
        f"pyenv install {version}, or uv python install {version}"
    )


def _candidates(version: str) -> Iterator[str]:
    short = ".".join(version.split(".")[:2])
    yield from (sys.executable, f"python{short}", "python3")
    for pattern in (
        f".pyenv/versions/{version}*/bin/python3",
        f".local/share/uv/python/cpython-{version}*/bin/python3",
    ):
        yield from map(str, sorted(Path.home().glob(pattern)))
    yield from (f"{folder}/bin/python{short}" for folder in ("/usr/local", "/opt/homebrew"))


def _compared(requirements: str) -> dict[str, str]:
    """The versions that decide a result."""
    found = stack.versions_of(requirements)
    return {name: version for name, version in found.items() if name not in code.UNLOCKED}


def _pins(lock: bytes) -> bytes:
    """The pins of a lock; refuses a lock that is empty or has other lines.

    Comments are removed: pip obeys a comment that names an encoding, in which a pin may read as an option.
    """
    if not lock:
        raise EnvironmentMissing(
            "the run has no lock, and its distributions differ from those installed here. "
            "Install those of its environment/requirements.txt, and run this command there."
        )
    pins = []
    for number, line in enumerate(map(str.strip, lock.decode("utf-8", "backslashreplace").splitlines()), start=1):
        if LOCK_LINE.fullmatch(line):
            pins.append(f"{line}\n")
        elif line and not line.startswith("#"):
            raise EnvironmentMissing(
                f"the run's lock:{number}: {line[:80]!r} is neither a pinned distribution nor a hash, so nothing is "
                "installed. Check the lock; if you trust it, install it by hand and run this command there."
            )
    return "".join(pins).encode()


def _build(place: Path, pins: bytes, made_with: str) -> None:
    """Build the environment; the file `ready` in it marks it as complete."""
    shutil.rmtree(place, ignore_errors=True)  # left by a build that was killed or failed
    place.mkdir(parents=True)
    (place / "requirements.lock").write_bytes(pins)
    print(f"building the environment of the run (takes a few minutes, once): {place}", file=sys.stderr)
    install = ("install", "--quiet", "--require-hashes", "-r", str(place / "requirements.lock"))
    _call(place, made_with, "-m", "venv", str(place))
    _call(place, str(_python(place)), "-m", "pip", *install)
    (place / "ready").touch()


def _call(place: Path, *command: str) -> None:
    """Run a command whose output goes to `pip.log`."""
    log = place / "pip.log"
    with log.open("a") as file:
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False, env=_plain())
    if done.returncode:
        lines = log.read_text(errors="backslashreplace").splitlines()
        said = [line.strip() for line in lines if line.startswith("ERROR:")] or [each for each in lines if each.strip()]
        last = said[-1].removeprefix("ERROR: ").rstrip(".") if said else f"exit code {done.returncode}"
        raise EnvironmentMissing(f"the run's environment cannot be built: {last}. Full log: {log}")


def _python(place: Path) -> Path:
    return place / "bin" / "python"


def _plain() -> dict[str, str]:
    """The environment variables without those that add modules to a Python."""
    ours = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}
    return ours | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
