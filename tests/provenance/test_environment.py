"""The Python of an environment like the recorded one: this, a kept one, or one that is built, whole or not at all."""

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from poolwise.provenance import code, environment, stack
from poolwise.provenance.code import LOCKS
from poolwise.provenance.environment import EnvironmentMissing, interpreter, python_of
from support import ROOT

HERE = platform.python_version()
INSTALLED = "jax==0.12.0\nNumPyro==0.22.0\npip==26.1\npoolwise==0.1.0\nruamel.yaml==1.0\n"
OTHER = INSTALLED.replace("jax==0.12.0", "jax==0.11.0")
NO_PACKAGES = b"# a lock of nothing\n"


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment of three distributions, poolwise and pip."""
    monkeypatch.setattr(stack, "distributions", lambda: INSTALLED)


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Where environments are built, in a moment and with nothing in them."""
    built = []

    def call(place: Path, *command: str) -> None:
        if "venv" in command:
            built.append(place)
            (place / "bin").mkdir()
            (place / "bin" / "python").symlink_to(sys.executable)

    monkeypatch.setattr(environment, "_call", call)
    return built


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


# This environment, or another.


@pytest.mark.parametrize(
    "recorded",
    [
        INSTALLED,
        INSTALLED.replace("poolwise==0.1.0\n", ""),
        INSTALLED.replace("poolwise==0.1.0", "poolwise==9"),
        INSTALLED.replace("pip==26.1", "pip==1"),
        INSTALLED.replace("ruamel.yaml", "ruamel_yaml").replace("NumPyro", "numpyro"),
        "".join(reversed(INSTALLED.splitlines(keepends=True))),
    ],
    ids=["same", "no poolwise", "other poolwise", "other pip", "other spelling", "other order"],
)
def test_this_environment_is_taken_where_it_has_what_was_recorded(tmp_path, builds, recorded):
    assert python_of(recorded, lock=NO_PACKAGES, python=HERE, folder=tmp_path) == Path(sys.executable)
    assert (builds, list(tmp_path.iterdir())) == ([], [])


@pytest.mark.parametrize(
    "recorded",
    [OTHER, INSTALLED + "six==1.0\n", INSTALLED.replace("jax==0.12.0\n", "")],
    ids=["other version", "one more", "one less"],
)
def test_another_is_built_where_it_has_not(tmp_path, builds, recorded):
    python = python_of(recorded, lock=NO_PACKAGES, python=HERE, folder=tmp_path)
    assert [python] == [place / "bin" / "python" for place in builds]


def test_another_is_built_for_another_python(tmp_path, builds, monkeypatch):
    monkeypatch.setattr(environment, "interpreter", lambda version: f"python {version}")
    assert python_of(INSTALLED, lock=NO_PACKAGES, python="3.12.99", folder=tmp_path) != Path(sys.executable)
    assert builds[0].name.endswith("-3.12.99")


# Built once.


def test_an_environment_is_built_once(tmp_path, builds):
    first, second = (python_of(OTHER, lock=NO_PACKAGES, python=HERE, folder=tmp_path) for _ in range(2))
    assert first == second
    assert len(builds) == 1


def test_locks_have_an_environment_each(tmp_path, builds):
    for lock in (b"# one\n", b"# two\n"):
        python_of(OTHER, lock=lock, python=HERE, folder=tmp_path)
    assert len(set(builds)) == 2


def test_what_a_killed_build_left_is_built_anew(tmp_path, builds):
    place = python_of(OTHER, lock=NO_PACKAGES, python=HERE, folder=tmp_path).parents[1]
    (place / "ready").unlink()
    (place / "half").touch()
    python_of(OTHER, lock=NO_PACKAGES, python=HERE, folder=tmp_path)
    assert (len(builds), (place / "half").exists(), (place / "ready").exists()) == (2, False, True)


def test_an_environment_whose_python_is_gone_is_built_anew(tmp_path, builds):
    python = python_of(OTHER, lock=NO_PACKAGES, python=HERE, folder=tmp_path)
    python.unlink()
    python.symlink_to("/nowhere/python3")
    assert python_of(OTHER, lock=NO_PACKAGES, python=HERE, folder=tmp_path).exists()


def test_who_waits_for_a_build_is_told_why(tmp_path, builds, capsys):
    python_of(OTHER, lock=NO_PACKAGES, python=HERE, folder=tmp_path)
    assert "a few minutes, once" in capsys.readouterr().err
    python_of(OTHER, lock=NO_PACKAGES, python=HERE, folder=tmp_path)
    assert capsys.readouterr().err == ""


@pytest.mark.process
def test_a_lock_of_nothing_gives_an_environment_of_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    python = python_of(OTHER, lock=NO_PACKAGES, python=HERE, folder=tmp_path)
    lines = (
        "import platform as p, importlib.metadata as m; print(p.python_version(), *[d.name for d in m.distributions()])"
    )
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([str(python), "-c", lines], capture_output=True, text=True, check=True, env=clean)
    assert done.stdout.split() == [HERE, "pip"]


# Builds that fail.


def failing_interpreter(tmp_path: Path, said: str) -> Path:
    return script(tmp_path / "failing", f"printf '{said}' >&2; exit 1")


def refused(folder: Path, *, lock: bytes = NO_PACKAGES, python: str = HERE) -> str:
    """The message where no environment can be had."""
    with pytest.raises(EnvironmentMissing) as caught:
        python_of(OTHER, lock=lock, python=python, folder=folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("working\\nERROR: no match for x\\n", "no match for x"),
        ("ERROR: no match for x\\n\\n[notice] other\\n", "no match for x"),
        ("first\\nlast\\n\\n", "last"),
        ("", "exit code 1"),
    ],
)
def test_a_build_that_fails_says_why_in_a_line_and_is_not_ready(tmp_path, monkeypatch, said, told):
    monkeypatch.setattr(environment, "interpreter", lambda version: str(failing_interpreter(tmp_path, said)))
    message = refused(tmp_path / "kept")
    (place,) = (path for path in (tmp_path / "kept").iterdir() if path.is_dir())
    assert message == f"the run's environment cannot be built: {told}. Full log: {place}/pip.log"
    assert (place / "pip.log").read_bytes() == said.encode().decode("unicode_escape").encode()
    assert not (place / "ready").exists()


@pytest.mark.process
def test_a_distribution_that_cannot_be_had_fails_the_build(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    lock = b"no-such-distribution==1.0 \\\n    --hash=sha256:" + b"0" * 64 + b"\n"
    assert "No matching distribution found for no-such-distribution==1.0" in refused(tmp_path, lock=lock)
    assert not list(tmp_path.glob("*/ready"))


# Records that are refused.


@pytest.mark.parametrize("python", ["", "3.12", "../../x", "3.12.1/x", "3.12.1\n", "-m 3.12.1"])
def test_what_is_no_version_of_python_is_refused(tmp_path, builds, python):
    assert "is not a version of Python" in refused(tmp_path / "kept", python=python)
    assert not (tmp_path / "kept").exists()


def test_a_run_without_a_lock_is_told_what_to_install(tmp_path, builds):
    assert "environment/requirements.txt" in refused(tmp_path, lock=b"")


@pytest.mark.parametrize(
    "line",
    [
        *("--index-url=https://example.org/simple", "-r other.txt", "-e .", "./x.whl", "git+https://example.org/x"),
        *("x @ https://example.org/x.whl", "x>=1", "x", "x==1 --index-url=https://example.org", "x==${HOME}"),
        "x==1 ; python_version > '3' --config-settings=a=b",
    ],
)
def test_a_lock_that_names_more_than_distributions_is_refused(tmp_path, builds, line):
    assert f"the run's lock:2: {line!r} is neither a pinned" in refused(tmp_path, lock=f"numpy==2.3\n{line}\n".encode())
    assert builds == []


@pytest.mark.parametrize("name", LOCKS)
def test_the_locks_of_the_project_are_taken(tmp_path, builds, name):
    assert python_of(OTHER, lock=(ROOT / name).read_bytes(), python=HERE, folder=tmp_path).exists()


# Interpreters.


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose one Python, this one, has a version that nobody asks for; its PATH is `bin`, its home `home`."""
    monkeypatch.setattr(sys, "executable", str(script(tmp_path / "this", "echo 3.0.0")))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path


def test_a_machine_without_the_python_says_which_to_install(machine):
    with pytest.raises(EnvironmentMissing, match=r"Python 3\.99\.1, which is not installed here\. Install it: pyenv"):
        interpreter("3.99.1")


@pytest.mark.parametrize(
    "name",
    [
        *("bin/python3.99", "bin/python3", "home/.pyenv/versions/3.99.1/bin/python3"),
        "home/.local/share/uv/python/cpython-3.99.1-linux-x86_64-gnu/bin/python3",
    ],
)
def test_an_interpreter_is_found_where_the_set_up_looks(machine, name):
    script(machine / name, "echo 3.99.1")
    assert Path(interpreter("3.99.1")).name == Path(name).name


def test_this_interpreter_comes_first(machine):
    script(machine / "bin" / "python3.99", "echo 3.99.1")
    script(Path(sys.executable), "echo 3.99.1")
    assert interpreter("3.99.1") == sys.executable


@pytest.mark.parametrize("shim", ["echo 3.99.1; exit 127", "echo 3.99.10", "exit 0", "echo 3.99.1rc1"])
def test_a_shim_that_fails_or_starts_another_is_passed_over(machine, shim):
    script(machine / "bin" / "python3.99", shim)
    real = script(machine / "home" / ".pyenv" / "versions" / "3.99.1" / "bin" / "python3", "echo 3.99.1")
    assert interpreter("3.99.1") == str(real)


@pytest.mark.parametrize("name", ["PYTHONPATH", "PYTHONHOME"])
def test_what_this_python_is_shown_is_not_shown_to_another(machine, monkeypatch, name):
    monkeypatch.setenv(name, "/elsewhere")
    script(machine / "bin" / "python3.99", f'test -z "${name}" && echo 3.99.1')
    assert interpreter("3.99.1") == "python3.99"


def test_an_interpreter_that_is_none_is_passed_over(machine):
    (machine / "bin").mkdir()
    (machine / "bin" / "python3.99").write_text("no program")
    (machine / "bin" / "python3.99").chmod(0o755)
    with pytest.raises(EnvironmentMissing):
        interpreter("3.99.1")


# The real thing.


NUMPYRO = ("jax", "jaxlib", "ml-dtypes", "multipledispatch", "numpy", "numpyro", "opt-einsum", "scipy", "tqdm")


@pytest.mark.slow
def test_a_lock_gives_an_environment_that_fits(tmp_path, monkeypatch):
    entries = re.split(r"^(?=\w)", (ROOT / "requirements.lock").read_text(), flags=re.MULTILINE)
    lock = "".join(each for each in entries if each.startswith(tuple(f"{name}==" for name in (*NUMPYRO, "packaging"))))
    python = python_of(OTHER, lock=lock.encode(), python=HERE, folder=tmp_path)
    lines = "import numpyro, poolwise.provenance.stack as p; print(numpyro.__version__, p.distributions())"
    with_source = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([str(python), "-c", lines], capture_output=True, text=True, check=True, env=with_source)
    numpyro, *found = done.stdout.split()
    assert numpyro == stack.versions_of(lock)["numpyro"]
    monkeypatch.setattr(code, "distributions", lambda: "\n".join(found))
    assert code._departures(lock) == ()
