"""The text of `--help`: every choice with its comment, and every family of priors."""

import contextlib
import tomllib

import pytest

from poolwise import __main__, help, run
from poolwise.model.priors import FAMILIES
from poolwise.paths import CONF, ROOT

CHOICES = [path for path in sorted(CONF.glob("*/**/*.yaml")) if path.parent != CONF / "hydra" / "help"]
EXPERIMENTS = sorted((ROOT / "experiments").glob("*.yaml"))


def test_the_families_are_those_of_the_registry_with_their_parameters():
    assert {name: tuple(family.parameters) for name, family in FAMILIES.items()} == help.FAMILIES


@pytest.mark.parametrize("path", CHOICES, ids=lambda path: str(path.relative_to(CONF)))
def test_every_choice_has_a_first_comment_line(path):
    assert path.read_text(encoding="utf-8").splitlines()[0] == f"# {help.first_comment(path)}" != "# "


@pytest.mark.parametrize(
    ("module", "files"), [("poolwise.run", [*CHOICES, *EXPERIMENTS]), ("poolwise.calibrate", CHOICES)]
)
def test_help_shows_every_choice_with_its_comment(process, module, files):
    said = " ".join(process("--help", module=module).stdout.split())
    for path in files:
        assert f"{path.stem} {help.first_comment(path)}" in said
    for name, parameters in help.FAMILIES.items():
        assert f"{name} {', '.join(parameters)}" in said


def test_the_help_is_that_of_hydra(capsys, monkeypatch):
    arguments = ["--help", "pooling=pooled", "seed=3"]
    assert help.shown(arguments, "config")
    ours = capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["", *arguments])
    with contextlib.suppress(SystemExit):
        run.main()
    assert ours == capsys.readouterr().out


def test_a_command_line_that_asks_for_no_help_gets_none(capsys):
    assert not help.shown(["seed=3"], "config")
    assert capsys.readouterr().out == ""


def test_choices_of_another_folder_are_shown_and_none_but_experiments_of_the_checkout(tmp_path):
    (tmp_path / "prior" / "mu").mkdir(parents=True)
    (tmp_path / "prior" / "mu" / "lab.yaml").write_text("# @package _global_\n# A prior of this lab.\nname: Gamma\n")
    told = help.choices({tmp_path: "*/**/*.yaml", ROOT: help.IN_ROOT})
    assert "prior/mu\n  lab  A prior of this lab." in told
    assert "conf/" not in told


def test_a_line_fits_the_terminal_and_breaks_no_number(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = help.choices({CONF: "*/**/*.yaml"}).splitlines()
    assert max(map(len, lines)) <= 80


def test_the_overview_names_every_console_script():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert {*scripts} == {"poolwise", *(f"poolwise-{name}" for name in __main__.COMMANDS)}
    assert all(f"poolwise.{name}" in __main__.overview() for name in __main__.COMMANDS)
