"""Run ids by their beginning, and stores whose driver is missing."""

import functools

import pytest

from poolwise.errors import ConfigError, UnknownRunError
from poolwise.tracking import run as tracking
from poolwise.tracking import store
from poolwise.tracking.record import Record


@pytest.fixture
def uri(outputs) -> str:
    return f"sqlite:///{outputs}/mlflow.db"


@pytest.fixture
def ids(outputs, uri) -> list[str]:
    found = []
    for name in ("hier-pois", "hier-nb"):
        with tracking.logged_run(Record(name, "cookies", {}, {}), uri=uri, outputs=outputs) as run:
            found.append(run.run_id)
    return found


def distinct(one: str, other: str) -> str:
    """The shortest beginning of one id that is not one of the other, at least four characters."""
    return next(one[:size] for size in range(store.LEAST_PREFIX, len(one)) if one[:size] != other[:size])


def test_a_unique_beginning_stands_for_the_id(uri, ids):
    assert store.run_id_of(distinct(*ids), uri=uri) == ids[0]
    assert store.run_id_of(ids[1], uri=uri) == ids[1]


@pytest.mark.parametrize("beginning", ["", "abc", "xyzw", "ab%_", "ABCD", "ab' "])
def test_what_cannot_begin_an_id_is_refused(uri, beginning):
    with pytest.raises(UnknownRunError, match="is not a run id"):
        store.run_id_of(beginning, uri=uri)


def test_an_unknown_beginning_names_the_store(uri, ids):
    unknown = next(f"{number:04x}" for number in range(9) if not any(each.startswith(f"{number:04x}") for each in ids))
    with pytest.raises(UnknownRunError, match=rf"sqlite:///.*mlflow\.db has no run {unknown}\. Check the run id"):
        store.run_id_of(unknown, uri=uri)


def test_an_ambiguous_beginning_lists_the_candidates(uri, monkeypatch):
    found = [store.Logged(f"abcd{end * 28}", f"run {end}", "cookies", "FINISHED", {}, {}, {}) for end in "01"]
    monkeypatch.setattr(store, "search", lambda where, uri: found if "'abcd%'" in where else [])
    said = f"begins with abcd: abcd{'0' * 28} (run 0), abcd{'1' * 28} (run 1). Give more of it."
    with pytest.raises(UnknownRunError) as caught:
        store.run_id_of("abcd", uri=uri)
    assert str(caught.value) == f"several runs have an id that {said}"


@pytest.mark.parametrize(
    ("driver", "remedy"),
    [
        ("psycopg", "pip install 'psycopg[binary]'"),
        ("MySQLdb", "pip install mysqlclient"),
        ("pyodbc", "pip install pyodbc"),
    ],
)
def test_a_missing_driver_is_named_with_its_package_and_without_the_password(monkeypatch, driver, remedy):
    def client(uri: str) -> None:
        raise ModuleNotFoundError(f"No module named '{driver}'", name=driver)

    monkeypatch.setattr(store, "MlflowClient", client)
    monkeypatch.setattr(store, "connect", functools.cache(store.connect.__wrapped__))
    with pytest.raises(ConfigError) as caught:
        store.connect("postgresql://ada:hunter2@db/runs")
    said = f"postgresql://db/runs needs the Python package {driver}, which is not installed. Install the driver of the "
    assert str(caught.value) == f"{said}database: {remedy}"
