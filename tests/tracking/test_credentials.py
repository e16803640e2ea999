"""Addresses of stores and their secrets: what is recorded, what goes to the environment, what is used."""

import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from poolwise.tracking.credentials import hide, public, scrub, store_uri

SECRET = "hunter2"
PUBLIC = [
    "https://mlflow.example.org",
    "https://mlflow.example.org:5000/team@home",  # an @ in the path
    "https://mlflow.example.org/runs?owner=ada@example.org",  # in the query
    "https://mlflow.example.org?owner=ada@example.org",
    "https://mlflow.example.org#ada@example.org",
    "postgresql+psycopg2://db:5432/runs",
    "sqlite:///outputs/mlflow.db",
    "sqlite:////home/ada@work/mlflow.db",  # an @ in an absolute path
    "file:///home/ada@work/runs",
    "outputs/ada@work",
    "databricks",
    "postgresql://db/runs?sslmode=require&application_name=poolwise",
]
SERVERS = [  # (address, what may be written of it, user, password)
    (f"http://ada:{SECRET}@localhost:5000", "http://localhost:5000", "ada", SECRET),
    (f"https://ada:{SECRET}@mlflow.example.org/x", "https://mlflow.example.org/x", "ada", SECRET),
    (f"https://{SECRET}@mlflow.example.org", "https://mlflow.example.org", SECRET, ""),  # a token for a user name
    (f"https://:{SECRET}@mlflow.example.org", "https://mlflow.example.org", "", SECRET),
    (f"https://ada:{SECRET}:x@mlflow.example.org", "https://mlflow.example.org", "ada", f"{SECRET}:x"),
    (f"https://ada:{SECRET}@x@mlflow.example.org", "https://mlflow.example.org", "ada", f"{SECRET}@x"),
    (f"https://ada:{SECRET}%2F%40x@mlflow.example.org/a@b", "https://mlflow.example.org/a@b", "ada", f"{SECRET}/@x"),
]
DATABASES = [
    (f"postgresql://ada:{SECRET}@db:5432/runs", "postgresql://db:5432/runs"),
    (f"mysql+pymysql://ada:{SECRET}%2Fx@db/runs", "mysql+pymysql://db/runs"),
]
QUERIES = [  # a user or a password among the parameters
    (f"postgresql://host/db?user=ada&password={SECRET}", "postgresql://host/db"),
    (f"postgresql://host:5432/db?sslmode=require&password={SECRET}", "postgresql://host:5432/db?sslmode=require"),
    (f"postgresql://host/db?user=ada@home&password={SECRET}&sslmode=require", "postgresql://host/db?sslmode=require"),
    (f"postgresql://host/db?PassWord={SECRET}", "postgresql://host/db"),
    (f"postgresql://host/db?pass%77ord={SECRET}", "postgresql://host/db"),
    (f"postgresql://host/db?pass%2577ord={SECRET}", "postgresql://host/db"),
    (f"postgresql://host/db?user=ada;password={SECRET}", "postgresql://host/db"),
    (f"postgresql://host/db?sslpassword={SECRET}&a=b", "postgresql://host/db?a=b"),
    (f"postgresql://host/db?password=x&{SECRET}&a=b", "postgresql://host/db?a=b"),  # an & not encoded
    (f"postgresql://host/db?password=x#{SECRET}", "postgresql://host/db"),
    (f"postgresql://ada:{SECRET}@host/db?password={SECRET}", "postgresql://host/db"),
    (f"mysql://host/db?charset=utf8mb4&passwd={SECRET}", "mysql://host/db?charset=utf8mb4"),
    (f"mssql+pyodbc:///?odbc_connect=DRIVER%3D%7BODBC%7D%3BUID%3Dada%3BPWD%3D{SECRET}", "mssql+pyodbc:///"),
    (f"mssql+pyodbc:///?odbc_connect=DRIVER%253Dx%253BPWD%253D{SECRET}", "mssql+pyodbc:///"),
    (f"mssql+pyodbc:///?odbc_connect=DSN%3Dx%3BPWD+%3D+%7Ba%3B{SECRET}%7D&a=b", "mssql+pyodbc:///?a=b"),
    (f"https://mlflow.example.org/x?access_token={SECRET}", "https://mlflow.example.org/x"),
]
PRIVATE = [*((uri, shown) for uri, shown, _, _ in SERVERS), *DATABASES, *QUERIES]
VARIABLES = ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> Callable[[], dict[str, str]]:
    """What MLflow finds in the environment: nothing at first, and whatever a test adds is forgotten again."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # so that what was there comes back, whoever sets the variable
        monkeypatch.delenv(name)
    return lambda: {name: os.environ[name] for name in VARIABLES if name in os.environ}


def read_by_hydra(argument: str) -> tuple[str, object]:
    """Key and value of an override, as Hydra takes them."""
    return argument.partition("=")[0], OverridesParser.create().parse_override(argument).value()


@pytest.mark.parametrize("uri", PUBLIC)
def test_public_keeps_an_address_without_credentials(uri):
    assert public(uri) == uri


@pytest.mark.parametrize(("uri", "shown"), PRIVATE)
def test_public_takes_user_and_password_out(uri, shown):
    assert public(uri) == shown


def test_scrub_takes_credentials_out_of_every_address_in_a_text():
    text = f"cannot reach https://ada:{SECRET}@h/x, nor 'postgresql://ada:{SECRET}@db'; ask the owner"
    assert scrub(text) == "cannot reach https://h/x, nor 'postgresql://db'; ask the owner"


@pytest.mark.parametrize(("uri", "shown"), PRIVATE)
def test_scrub_leaves_no_secret_in_a_message(uri, shown):
    assert SECRET not in scrub(f"{uri}: no answer")


def test_scrub_takes_an_odbc_string_with_blanks_out():
    text = f"(mssql+pyodbc:///?odbc_connect=DRIVER={{ODBC Driver 17}};UID=ada;PWD={SECRET}) failed\nat line 3"
    assert SECRET not in scrub(text)
    assert scrub(text).endswith("\nat line 3")


@pytest.mark.parametrize(("uri", "shown"), QUERIES)
def test_hide_takes_the_parameters_of_a_quoted_address(uri, shown, known):
    (hidden,) = hide([f"tracking.uri='{uri}'"])
    assert read_by_hydra(hidden) == ("tracking.uri", shown)
    assert known() == {"MLFLOW_TRACKING_URI": uri}
    assert store_uri(shown, Path()) == uri


@pytest.mark.parametrize("text", ["ask ada@example.org", "sqlite:////home/ada@work/mlflow.db is locked", ""])
def test_scrub_leaves_other_texts_alone(text):
    assert scrub(text) == text


@given(st.text(max_size=20), st.text(max_size=20))
def test_public_knows_no_quoted_user_or_password(user, password):
    uri = f"https://{quote(user, safe='')}:{quote(password, safe='')}@mlflow.example.org/x"
    assert public(uri) == "https://mlflow.example.org/x"


@pytest.mark.parametrize("key", ["tracking.uri", "+tracking.uri", "++tracking.uri"])
@pytest.mark.parametrize(("uri", "shown"), [each for each in PRIVATE if each not in QUERIES])
def test_hide_leaves_the_public_address_on_the_command_line(key, uri, shown):
    (hidden,) = hide([f"{key}={uri}"])
    assert read_by_hydra(hidden) == (key, shown)


@pytest.mark.parametrize("quoted", ["tracking.uri='{}'", 'tracking.uri="{}"'])
@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        (f"postgresql://ada:{SECRET}@db/runs", "postgresql://db/runs"),
        # Hydra reads a second = and an & only within quotes
        (f"postgresql://ada:{SECRET}@db/runs?sslmode=require&a=b", "postgresql://db/runs?sslmode=require&a=b"),
    ],
)
def test_hide_takes_a_quoted_address(quoted, uri, shown, known):
    (hidden,) = hide([quoted.format(uri)])
    assert read_by_hydra(hidden) == ("tracking.uri", shown)
    assert known() == {"MLFLOW_TRACKING_URI": uri}


@pytest.mark.parametrize(("uri", "shown", "user", "password"), SERVERS)
def test_hide_gives_the_credentials_of_a_server_to_the_variables_of_mlflow(uri, shown, user, password, known):
    hide(["seed=1", f"tracking.uri={uri}"])
    assert known() == dict(zip(VARIABLES, (shown, user, password), strict=True))


@pytest.mark.parametrize("uri", [uri for uri, _ in DATABASES])
def test_hide_gives_the_whole_address_of_a_database_to_the_environment(uri, known):
    hide(["seed=1", f"tracking.uri={uri}"])
    assert known() == {"MLFLOW_TRACKING_URI": uri}


@pytest.mark.parametrize(
    "argument",
    [
        f"tracking.uri='https://ada:{SECRET}@h",  # a quote that is not closed
        f"tracking.uri= https://ada:{SECRET}@h",
        f"tracking.uri=https://ada:{SECRET}[x@h",  # what belongs percent-encoded in a password, and is not
        f"tracking.uri='postgresql://ada:x {SECRET}@db/runs'",
        f"tracking.uri=postgresql://ada:x/{SECRET}@db/runs",  # SQLAlchemy takes everything up to the @
        f"tracking.uri='postgresql://ada:x?{SECRET}@db/runs'",
        f"tracking.uri='https://ada:x,{SECRET}@h'",
        f"tracking.uri=https://ada:{SECRET}@h,https://ada:{SECRET}@i",
    ],
)
def test_hide_leaves_no_secret_behind(argument):
    assert SECRET not in "".join(hide([argument]))


@pytest.mark.parametrize(
    "argument",
    [
        *(f"tracking.uri={uri}" for uri in PUBLIC),
        *("tracking.uri='sqlite:///a b.db'", "tracking.uri=null", "seed=1", "--multirun", ""),
        "data.path=https://example.org/ada@home",
    ],
)
def test_hide_leaves_any_other_argument_alone(argument, known):
    assert hide([argument]) == [argument]
    assert known() == {}


def test_hide_keeps_the_order_of_the_arguments():
    arguments = ["-m", f"tracking.uri=https://ada:{SECRET}@h", "seed=1,2"]
    assert hide(arguments) == ["-m", "tracking.uri=https://h", "seed=1,2"]


def test_hide_does_not_change_the_list_it_is_given():
    arguments = [f"tracking.uri=https://ada:{SECRET}@h"]
    hide(arguments)
    assert arguments == [f"tracking.uri=https://ada:{SECRET}@h"]


def test_the_store_is_a_database_in_outputs_by_default(tmp_path):
    assert store_uri(None, tmp_path) == f"sqlite:///{tmp_path.resolve()}/mlflow.db"


def test_the_default_store_has_an_absolute_address(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert store_uri(None, Path("outputs")) == f"sqlite:///{Path.cwd()}/outputs/mlflow.db"


@pytest.mark.parametrize("uri", [*PUBLIC, *(uri for uri, _ in DATABASES)])
def test_the_store_is_what_the_environment_names(uri, monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert store_uri(None, tmp_path) == uri


@pytest.mark.parametrize(("uri", "shown", "user", "password"), SERVERS)
def test_the_address_of_a_server_is_parted_from_its_credentials(
    uri, shown, user, password, known, monkeypatch, tmp_path
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert store_uri(None, tmp_path) == shown
    assert known() == dict(zip(VARIABLES, (shown, user, password), strict=True))


def test_the_store_asked_for_beats_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql://ada:{SECRET}@other/runs")
    assert store_uri("https://h", tmp_path) == "https://h"


@pytest.mark.parametrize(("uri", "shown"), DATABASES)
def test_the_database_asked_for_gets_its_credentials_from_the_environment(uri, shown, monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert store_uri(shown, tmp_path) == uri


@pytest.mark.parametrize(("uri", "shown"), DATABASES)
def test_a_database_on_the_command_line_comes_back_whole(uri, shown, tmp_path):
    (hidden,) = hide([f"tracking.uri={uri}"])
    assert store_uri(read_by_hydra(hidden)[1], tmp_path) == uri


def test_a_server_asked_for_keeps_the_users_own_credentials(known, monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRET)
    store_uri("https://h", tmp_path)
    assert (known()["MLFLOW_TRACKING_USERNAME"], known()["MLFLOW_TRACKING_PASSWORD"]) == ("ada", SECRET)
