"""Fits, counts and stores that tests share: each is made once a session."""

import functools
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from poolwise.garbage import collect_rarely

ROOT = Path(__file__).resolve().parents[1]
NUM_DEVICES = 2
LAYERS = ("unit", "fit", "process", "slow")
NEEDS = {  # a fixture -> the layer of a test that needs it and has no marker of its own
    "started": "process",
    **dict.fromkeys(("fit_of", "exact_of", "migrated_store"), "fit"),
}

settings.register_profile("default", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("default")


def pytest_configure(config: pytest.Config) -> None:
    """No test reaches the user's store, folders or credentials; a process of tests collects as the commands do."""
    collect_rarely()
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "HYDRA_FULL_ERROR"):
        os.environ.pop(name, None)


def layer_of(item: pytest.Item) -> str:
    """`slow`, or the marker that is nearest to a test, or what its fixtures cost, or `unit`."""
    marked = [mark.name for mark in item.iter_markers() if mark.name in LAYERS]
    needed = [layer for fixture, layer in NEEDS.items() if fixture in getattr(item, "fixturenames", ())]
    return "slow" if "slow" in marked else next(iter([*marked, *needed]), "unit")


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Every test has one layer; the slow ones run where -m names them."""
    layers = {item: layer_of(item) for item in items}
    for node in {node for item in items for node in item.listchain()}:
        node.own_markers[:] = [mark for mark in node.own_markers if mark.name not in LAYERS]
    for item, layer in layers.items():
        item.add_marker(layer)
    if "slow" not in config.option.markexpr:
        config.hook.pytest_deselected(items=[item for item in items if layers[item] == "slow"])
        items[:] = [item for item in items if layers[item] != "slow"]


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of compiled programs: this worker's own, and the one that all share, which the user may name.

    A worker has a folder of its own: JAX may read what another process writes.
    """
    own, base = tmp_path_factory.mktemp("jax-cache"), tmp_path_factory.getbasetemp()
    beside = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    shared = Path(os.environ.get("JAX_COMPILATION_CACHE_DIR") or beside / "programs")
    shared.mkdir(parents=True, exist_ok=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(own)
    return own, shared


@pytest.fixture(scope="session", autouse=True)
def devices(programs: tuple[Path, Path]) -> int:
    """JAX as the project starts it: float64, two CPU devices, programs kept for the processes that tests start."""
    import jax

    from poolwise.inference.devices import start_devices

    own, _ = programs
    jax.config.update("jax_compilation_cache_dir", str(own))
    jax.config.update("jax_numpy_rank_promotion", "allow")
    return start_devices(platform="cpu", num_devices=NUM_DEVICES, x64=True, num_chains=4, cache_dir=str(own))


@pytest.fixture(scope="module", autouse=True)
def programs_exchanged(programs: tuple[Path, Path]) -> Iterator[None]:
    """A file of tests begins with the programs that the other workers have made, and ends by adding its own."""
    own, shared = programs
    add(shared, to=own)
    yield
    add(own, to=shared)


def add(folder: Path, *, to: Path) -> None:
    """Files that are only in one folder to the other; each appears whole."""
    for name in {each.name for each in folder.glob("*-cache")} - set(os.listdir(to)):
        whole = shutil.copy(folder / name, to / f"{name}.{os.getpid()}")
        os.replace(whole, to / name)


@pytest.fixture(scope="session")
def cookies():
    """The shipped counts."""
    from poolwise.counts.cells import read_counts

    return read_counts(ROOT / "data" / "cookies.csv", group="location", count="chips", name="cookies")


@pytest.fixture(scope="session")
def fit_of(cookies) -> Callable:
    """`fit_of(pooling, likelihood)`: the default fit of the cookies, each variant sampled once a session."""
    from support import PRIORS, fit_cookies

    return functools.cache(lambda pooling, likelihood: fit_cookies(cookies, pooling, likelihood, priors=PRIORS))


@pytest.fixture(scope="session")
def exact_of() -> Callable:
    """`exact_of(pooling, likelihood)`: the cookies' exact posterior, as `test_exact_reference` computes it."""
    from exact_reference import recorded

    return recorded


@pytest.fixture(scope="session")
def migrated_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of outputs with a database that MLflow has brought up to date; copy it, do not use it."""
    from poolwise.tracking.store import connect

    folder = tmp_path_factory.mktemp("store")
    connect(f"sqlite:///{folder}/mlflow.db")
    return folder


@pytest.fixture
def outputs(migrated_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of outputs with a ready store, which `poolwise` takes for its own."""
    folder = tmp_path / "outputs"
    shutil.copytree(migrated_store, folder)
    monkeypatch.setenv("POOLWISE_OUTPUTS", str(folder))
    return folder


Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def command(outputs: Path, tmp_path: Path) -> Command:
    """`command("seed=3")`: `python -m poolwise.run seed=3` in this process, elsewhere than in the checkout."""
    from support import called

    return functools.partial(called, folder=tmp_path, module="poolwise.run")


@pytest.fixture(scope="session")
def started() -> Command:
    """`started("seed=3", module="poolwise.run", folder=tmp_path)`: a fresh process, which takes seconds to begin."""
    import support

    return support.started


@pytest.fixture
def process(started: Command, outputs: Path, tmp_path: Path) -> Command:
    """`command` in a fresh process, for what only a process shows."""
    return functools.partial(started, folder=tmp_path, module="poolwise.run")
