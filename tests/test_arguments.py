"""What is typed is what is meant: names, priors with their family, and values that Hydra cannot read."""

import shlex
import subprocess

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from poolwise import arguments
from poolwise.arguments import as_typed, fault_of, quoted, replacing
from poolwise.config import check, names_of
from poolwise.errors import ConfigError
from poolwise.paths import CONF, register_resolvers

LABELS = ["null", "1_000", "1.50", "true", "1e3", "2023", "007", "-5", "a,b", "Köln", "O'Brien", "N (rural)"]
LABELS += [
    "#5",
    "a&b",
    "a=b",
    "~x",
    "two\nlines",
    "\x1b[31m",
    "a  b",
    " a ",
    "[1]",
    "{a: 1}",
    "choice(a,b)",
    "a\\",
    "???x",
]


def read(override: str) -> str:
    """The text that Hydra reads from an override, as the config takes it."""
    return str(OverridesParser.create().parse_override(override).value())


def composed(*given: str):
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return check(compose("config", as_typed(given)))


@pytest.mark.parametrize("label", LABELS)
def test_a_label_is_the_text_as_typed(label):
    assert composed(f"predict.group={label}").predict.group == label


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda text: "${" not in text))
def test_any_text_is_read_as_typed(label):
    is_quoted = len(label) > 1 and label[0] == label[-1] and label[0] in "'\""
    assert is_quoted or read(quoted(f"predict.group={label}")) == label


@pytest.mark.parametrize("key", [key for key in names_of() if key != "tracking.uri"])
def test_every_setting_that_holds_a_name_takes_a_number_as_text(key):
    section, _, leaf = key.partition(".")
    assert getattr(getattr(composed(f"{key}=1_000"), section), leaf) == "1_000"


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("predict.group=", None),
        ("data.exposure=null", None),
        ("data.name=null", "cookies"),
        ("tracking.uri=null", None),
    ],
)
def test_each_name_that_may_be_absent_has_one_text_for_it(override, value):
    section, _, leaf = override.partition("=")[0].partition(".")
    assert getattr(getattr(composed(override), section), leaf) == value


@pytest.mark.parametrize("override", ["predict.group=north", "predict.group=7", "predict.group='a b'", "seed=null"])
def test_an_override_that_hydra_reads_as_typed_is_left_alone(override):
    assert quoted(override) == override


def test_an_interpolation_in_a_path_is_kept():
    assert quoted("data.path=${oc.env:HOME}/a.csv") == "data.path=${oc.env:HOME}/a.csv"


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ("null,1_000,1.50", ["null", "1_000", "1.50"]),
        ("'a,b', O'Brien,c", ["a,b", "O'Brien", "c"]),
        ("choice(1e3,true)", ["1e3", "true"]),
    ],
)
def test_a_sweep_takes_every_label_as_typed(values, labels):
    read = OverridesParser.create().parse_override(quoted(f"predict.group={values}", may_sweep=True))
    assert [getattr(each, "text", each) for each in read._value.list] == labels


def test_a_prior_with_its_family_replaces_family_and_values():
    prior = composed("prior.mu={name: Weibull, scale: 2, concentration: 1.5}").prior["mu"]
    assert prior == {"name": "Weibull", "scale": 2.0, "concentration": 1.5}


def test_a_later_value_changes_the_replaced_prior():
    prior = composed("prior.mu={name: Weibull, scale: 2, concentration: 1.5}", "prior.mu.scale=3").prior["mu"]
    assert prior["scale"] == 3.0


def test_values_without_a_family_change_the_prior_in_place():
    assert composed("prior.sigma={rate: 2}").prior["sigma"] == {"name": "Exponential", "rate": 2.0}


def test_a_key_that_the_new_family_lacks_is_refused_and_not_dropped():
    with pytest.raises(ConfigError, match=r"prior\.mu\.rate is not a parameter of Weibull"):
        composed("prior.mu={name: Weibull, scale: 2, concentration: 1.5, rate: 1}")


def test_priors_with_their_families_can_be_swept():
    removed, added = replacing("prior.mu={name: HalfNormal, scale: 2},{name: Exponential, rate: 1}")
    assert (removed, OverridesParser.create().parse_override(added).is_sweep_override()) == ("~prior.mu", True)


@pytest.mark.parametrize(
    "value", ["Köln", "O'Brien", "a(b", "~x", "#5", 'say "hi" (1)', "a&b", "a=b", "$HOME ö", "`ö`", "!ö"]
)
def test_the_form_that_an_error_gives_is_read_as_the_value_when_typed_in_a_shell(value):
    (typed,) = shlex.split(fault_of(f"pooling={value}").partition("type it in quotes: ")[2])
    assert (typed.partition("=")[0], read(typed)) == ("pooling", value)


@pytest.mark.parametrize("override", ["pooling", "=hierarchical", "="])
def test_an_argument_that_sets_nothing_is_answered(override):
    assert fault_of(override) == f"{override} sets nothing. Write <key>=<value>, without blanks around the sign."


def test_all_overrides_that_cannot_be_read_are_reported_at_once():
    with pytest.raises(ConfigError) as caught:
        as_typed(["pooling=Köln", "seed=3", "predict.above=[1"])
    assert [line.split(" cannot")[0] for line in str(caught.value).splitlines()] == ["pooling=Köln", "predict.above=[1"]


def test_flags_may_stand_between_overrides():
    assert as_typed(["seed=1,2", "-m", "predict.group=null"]) == ["seed=1,2", "predict.group='null'", "-m"]


@pytest.mark.parametrize("module", ["run", "calibrate", "compare", "reproduce", "ui", "sync", "__main__"])
def test_every_command_says_the_version_of_the_package(module, monkeypatch, capsys):
    command = __import__(f"poolwise.{module}", fromlist=["cli"])
    monkeypatch.setattr("sys.argv", [module, "--version"])
    with pytest.raises(SystemExit) as ended:
        command.cli()
    assert (ended.value.code, capsys.readouterr().out.strip()) == (0, arguments.version())


def test_several_values_without_m_are_answered(command):
    done: subprocess.CompletedProcess[str] = command("seed=1,2")
    said = "ConfigError: seed=1,2 gives one run several values. Add -m for a sweep, or write a list: seed=[1,2].\n"
    assert (done.returncode, done.stderr) == (2, said)
