"""The set-up: it takes an interpreter that runs, and says what to do where there is none."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A checkout with an empty lock, and a PATH whose python3.12 is a shim that fails."""
    shutil.copy(ROOT / "setup.sh", tmp_path)
    (tmp_path / "requirements.lock").touch()
    shim = tmp_path / "bin" / "python3.12"
    shim.parent.mkdir()
    shim.write_text("#!/bin/sh\nexit 127\n")
    shim.chmod(0o755)
    for tool in ("sh", "dirname", "rm", "touch"):
        (shim.parent / tool).symlink_to(str(shutil.which(tool)))
    return tmp_path


def set_up(machine: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {"PATH": str(machine / "bin"), "HOME": str(machine / "home")} | environment
    return subprocess.run(
        [str(machine / "bin" / "sh"), "setup.sh"], cwd=machine, env=clean, capture_output=True, text=True, check=False
    )


@pytest.mark.skipif(Path("/usr/local/bin/python3.12").exists(), reason="this machine has one where the set-up looks")
def test_a_machine_without_a_python_is_told_what_to_do(machine):
    (machine / ".venv").mkdir()
    done = set_up(machine)
    assert done.returncode == 2
    assert "no Python 3.12 to 3.14 found. Install one" in done.stderr
    assert (machine / ".venv").is_dir()  # what was there is not taken away


@pytest.mark.process
def test_a_shim_that_fails_is_passed_over_for_an_interpreter_that_runs(machine):
    real = machine / "home" / ".pyenv" / "versions" / "3.12.99" / "bin" / "python3"
    real.parent.mkdir(parents=True)
    real.symlink_to(Path(sys.executable).resolve())
    assert "creating .venv with" in set_up(machine).stdout


def test_an_interpreter_that_was_named_and_does_not_run_is_refused(machine):
    done = set_up(machine, PYTHON=str(machine / "bin" / "python3.12"))
    assert done.returncode == 2
    assert "is not a working Python 3.12 to 3.14" in done.stderr


def test_another_environment_has_its_own_folder_and_lock(machine):
    python = machine / "bin" / "python3.12"
    python.write_text("#!/bin/sh\nexit 0\n")  # runs, and makes nothing: the first pip is missing
    command = [str(machine / "bin" / "sh"), "setup.sh", ".venv-bench", "requirements-bench.lock"]
    environment = {"PATH": str(machine / "bin"), "HOME": str(machine), "PYTHON": str(python)}
    done = subprocess.run(command, cwd=machine, env=environment, capture_output=True, text=True, check=False)
    assert "creating .venv-bench with" in done.stdout
    assert ".venv-bench/bin/pip" in done.stderr
    assert not (machine / ".venv").exists()


def test_every_command_has_a_console_script():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    commands = {path.stem for path in (ROOT / "src/poolwise").glob("*.py") if "\ndef cli(" in path.read_text()}
    others = {f"poolwise-{name}": f"poolwise.{name}:cli" for name in commands - {"__main__"}}
    assert scripts == {"poolwise": "poolwise.__main__:cli", **others}
