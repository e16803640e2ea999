"""The distributions that a run recorded to a Python that has them: this one, or one built from the run's lock.

A built environment is kept and used again. It holds what the lock says and nothing else; the code to run in it goes on
PYTHONPATH. A run comes from a tracking server, so its lock may name no other source of distributions than the ones
that pip is set up with here.
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

PYTHON_VERSION = re.compile(r"\d+\.\d+\.\d+(?:(?:a|b|rc)\d+)?\+?")  # as platform.python_version() tells it
LOCK_LINE = re.compile(  # a pinned name, maybe with a condition; or a hash
    r"[A-Za-z0-9][\w.-]*(?:\[[\w, .-]*\])?==[\w.!+]+\s*(?:;[\w\s.'\"()<>=!~,+]*)?\\?|--hash=[\w:]+\s*\\?", re.ASCII
)
PROBE = "import ensurepip, platform, sqlite3, ssl, venv; print(platform.python_version())"


class EnvironmentMissing(RequestError):
    """No environment with the recorded distributions is here, and none could be built."""


def python_of(requirements: str, *, lock: bytes, python: str, folder: Path) -> Path:
    """The Python of an environment with the recorded distributions: this one, or one built from the lock.

    Parameters
    ----------
    requirements : every distribution that the run had, `name==version` a line
    lock : the hash-locked requirements that its environment was made from
    python : the version of its Python
    folder : where built environments are kept, one for each lock and Python

    Raises
    ------
    EnvironmentMissing
        if that Python is not here, or the lock is none or cannot be installed.
    """
    if python == platform.python_version() and _compared(requirements) == _compared(stack.distributions()):
        return Path(sys.executable)
    if not PYTHON_VERSION.fullmatch(python):
        raise EnvironmentMissing(f"{python!r} is no version of Python. The record of the run is damaged; name another.")
    pins = _pins(lock)
    place = folder.resolve() / f"{hashlib.sha256(lock).hexdigest()[:12]}-{python}"
    with exclusive_lock(place.with_name(f"{place.name}.lock"), otherwise=f"another process builds {place}"):
        if not ((place / "ready").exists() and _python(place).exists()):
            _build(place, pins, interpreter(python))
    return _python(place)


def interpreter(version: str) -> str:
    """An interpreter of exactly this version that can make environments.

    Raises
    ------
    EnvironmentMissing
        if there is none where the set-up looks.
    """
    for candidate in _candidates(version):
        try:
            done = subprocess.run([candidate, "-c", PROBE], capture_output=True, text=True, check=False, env=_plain())
        except OSError:
            continue
        if done.returncode == 0 and done.stdout.strip() == version:  # a shim on PATH may fail, or start another
            return candidate
    raise EnvironmentMissing(
        f"the run was made with Python {version}, which is not on this machine. Install it: "
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
    """The lines of a lock that pin; one that is none, without content or with other lines, is refused.

    Its comments are left out: pip obeys one that names an encoding, under which a pin can read as an option.
    """
    if not lock:
        raise EnvironmentMissing(
            "the run has no lock, and other distributions are installed here than it was made with. "
            "Install those of its environment/requirements.txt, and start this there."
        )
    pins = []
    for number, line in enumerate(map(str.strip, lock.decode("utf-8", "backslashreplace").splitlines()), start=1):
        if LOCK_LINE.fullmatch(line):
            pins.append(f"{line}\n")
        elif line and not line.startswith("#"):
            raise EnvironmentMissing(
                f"the run's lock:{number}: {line[:80]!r} is no pinned distribution nor its hash, so nothing is "
                "installed. Look at the lock; install it by hand if you trust it, and start this there."
            )
    return "".join(pins).encode()


def _build(place: Path, pins: bytes, made_with: str) -> None:
    """Make the environment; `ready` in it says that it is whole."""
    shutil.rmtree(place, ignore_errors=True)  # what a build that was killed or failed left
    place.mkdir(parents=True)
    (place / "requirements.lock").write_bytes(pins)
    print(f"building an environment like the run's (some minutes, once): {place}", file=sys.stderr)
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
        raise EnvironmentMissing(f"the run's environment cannot be built: {last}. All that was said: {log}")


def _python(place: Path) -> Path:
    return place / "bin" / "python"


def _plain() -> dict[str, str]:
    """The environment variables, less those that show a Python what is not its own."""
    ours = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}
    return ours | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
