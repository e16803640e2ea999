"""Fits, counts and stores that tests share: each is made once a session."""

import functools
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]
NUM_DEVICES = 2

settings.register_profile("default", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("default")


def pytest_configure(config: pytest.Config) -> None:
    """No test reaches the user's store, folders or credentials."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "HYDRA_FULL_ERROR"):
        os.environ.pop(name, None)


@pytest.fixture(scope="session", autouse=True)
def devices(tmp_path_factory: pytest.TempPathFactory) -> int:
    """JAX as the project starts it: float64, two CPU devices, programs kept for the processes that tests start."""
    cache = tmp_path_factory.mktemp("jax-cache")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(cache)
    import jax

    from poolwise.fit import start_devices

    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_numpy_rank_promotion", "allow")
    return start_devices(platform="cpu", num_devices=NUM_DEVICES, x64=True, num_chains=4, cache_dir=str(cache))


@pytest.fixture(scope="session")
def cookies():
    """The shipped counts."""
    from poolwise.data import read_counts

    return read_counts(ROOT / "data" / "cookies.csv", group="location", count="chips", name="cookies")


@pytest.fixture(scope="session")
def fit_of(cookies) -> Callable:
    """`fit_of(pooling, likelihood)`: the default fit of the cookies, each variant sampled once a session."""
    from support import PRIORS, fit_cookies

    return functools.cache(lambda pooling, likelihood: fit_cookies(cookies, pooling, likelihood, priors=PRIORS))


@pytest.fixture(scope="session")
def migrated_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of outputs with a database that MLflow has brought up to date; copy it, do not use it."""
    from poolwise.store import connect

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


@pytest.fixture
def process(outputs: Path, tmp_path: Path) -> Command:
    """`command` in a fresh process, for what only a process shows; it takes seconds to import JAX and MLflow."""
    from support import started

    return functools.partial(started, folder=tmp_path, module="poolwise.run")
