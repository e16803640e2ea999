"""What several test files say in the same way."""

import hashlib
import importlib
import io
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import xarray as xr
import yaml
from arviz_stats.base import array_stats
from hydra.core.singleton import Singleton

from poolwise.config import leaves_of
from poolwise.counts.cells import Counts
from poolwise.counts.statistics import filled_up, sufficient_statistics
from poolwise.inference import devices
from poolwise.inference.datatree import to_tree
from poolwise.inference.engines.base import Fit
from poolwise.inference.engines.nuts import sample as fit
from poolwise.inference.settings import Device, Sampler
from poolwise.model.count_model import Model, count_model, sites_of
from poolwise.model.likelihoods import EVERY_LIKELIHOOD
from poolwise.model.poolings import EVERY_POOLING
from poolwise.model.priors import prior_values

ROOT = Path(__file__).resolve().parents[1]
VARIANTS = [
    (pooling, likelihood)
    for pooling in ("pooled", "unpooled", "hierarchical")
    for likelihood in ("poisson", "negative_binomial")
]


def _notebook_priors() -> dict[str, dict]:
    """The settings of `conf/prior/notebook.yaml`, by site."""
    folder = ROOT / "conf" / "prior"
    chosen = yaml.safe_load((folder / "notebook.yaml").read_text())["defaults"]
    return {
        site: yaml.safe_load((folder / site / f"{choice}.yaml").read_text())
        for each in chosen
        for site, choice in each.items()
    }


PRIORS = _notebook_priors()
SAMPLER = Sampler(
    num_warmup=2000, num_samples=4000, num_chains=4, target_accept=0.9, max_tree_depth=10, checkpoint_every=1000
)
NUM_DEVICES = 2
DEVICE = Device(platform="cpu", num_devices=NUM_DEVICES, chain_method="map", x64=True)
ONE_DEVICE = replace(DEVICE, num_devices=1)  # the same draws; NUTS is compiled once for each device


def model_of(pooling: str, likelihood: str, priors: dict = PRIORS, parameterisation: str | None = None) -> Model:
    """A variant with these priors; sampled in the default parameterisation of its pooling unless one is given."""
    families = {site: priors[site]["name"] for site in sites_of(pooling, likelihood)}
    return count_model(pooling, likelihood, families, parameterisation)


def every_variant(effects: tuple[str, ...] = ()) -> Iterator[tuple[str, Model]]:
    """Every likelihood, pooling, population and parameterisation that is offered, with its name."""
    for pooling, likelihood in itertools.product(EVERY_POOLING, EVERY_LIKELIHOOD):
        sites = sites_of(pooling.name, likelihood.name, has_covariates=bool(effects))
        families = {site: PRIORS[site]["name"] for site in sites}
        for parameterisation in pooling.offered(likelihood):
            model = count_model(
                pooling.name,
                likelihood.name,
                families,
                parameterisation,
                population=pooling.population,
                overdispersion=likelihood.overdispersion,
                effects=effects,
            )
            choices = (likelihood.name, likelihood.overdispersion, pooling.name, pooling.population, parameterisation)
            yield " ".join(filter(None, choices)), model


def fit_cookies(
    counts: Counts,
    pooling: str,
    likelihood: str,
    *,
    priors: dict = PRIORS,
    seed: int = 0,
    sampler: Sampler = SAMPLER,
    device: Device = ONE_DEVICE,
    parameterisation: str | None = None,
) -> Fit:
    """A fit with everything as in the default config but what is given."""
    values = prior_values(priors, sites=sites_of(pooling, likelihood))
    model = model_of(pooling, likelihood, priors, parameterisation)
    return fit(model, counts, values, seed=seed, sampler=sampler, device=device)


def posterior_and_cells(draws: Fit, counts: Counts) -> tuple[xr.Dataset, xr.Dataset]:
    """The labelled draws of a fit, and the cells of its table, as everything after a fit reads them."""
    tree = to_tree(draws.posterior, draws.sample_stats, counts)
    return tree["posterior"].to_dataset(), tree["constant_data"].to_dataset()


def params_of(settings: dict[str, Any]) -> dict[str, str]:
    """The parameters that a run with these settings logs."""
    return {key: str(value) for key, value in leaves_of(settings)}


def groups_of(counts: Counts) -> list[np.ndarray]:
    """The counts of the rows of each group, as `exact_reference` takes them."""
    group, _, count = counts.rows()
    return [count[group == g] for g in range(counts.num_groups)]


def shared_shapes(counts: Counts) -> dict[str, np.ndarray]:
    """Sufficient statistics in the shapes of other tables with as many groups, so that they share their programs."""
    return filled_up(sufficient_statistics(counts), to=lambda _, length: max(length, 8))


def same_bits(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    """Whether two sets of draws are equal to the last bit."""
    return one.keys() == other.keys() and all(one[name].tobytes() == other[name].tobytes() for name in one)


def by_parameter(draws: np.ndarray) -> np.ndarray:
    """Draws (chain, draw, ...) as (parameter, chain, draw)."""
    return np.moveaxis(draws.reshape(*draws.shape[:2], -1), 2, 0)


def moment_errors(draws: Mapping[str, np.ndarray], exact: Any) -> dict[str, np.ndarray]:
    """ "mean of mu" and so on -> how far it is from that of `exact_reference`, in Monte Carlo errors, (parameter,)."""
    found = {}
    for name, mean in exact.mean.items():
        sample = by_parameter(draws[name])
        off = {
            "mean": sample.mean((1, 2)) - np.ravel(mean),
            "sd": sample.std((1, 2), ddof=1) - np.ravel(exact.sd[name]),
        }
        found |= {f"{kind} of {name}": each / array_stats.mcse(sample, method=kind) for kind, each in off.items()}
    return found


def assert_moments_are_exact(draws: dict[str, np.ndarray], exact: Any) -> None:
    """Means and standard deviations within four Monte Carlo errors of those of `exact_reference`."""
    for what, errors in moment_errors(draws, exact).items():
        assert np.all(np.abs(errors) < 4), what


def digest(draws: dict[str, np.ndarray]) -> str:
    """One digest of all sites."""
    return hashlib.sha256(b"".join(draws[name].tobytes() for name in sorted(draws))).hexdigest()


def at_once(*codes: str) -> list[subprocess.CompletedProcess[str]]:
    """Fresh processes that run these lines, side by side: each spends most of its time on one core."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", f"import sys; sys.path.insert(0, 'tests')\n{code}"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for code in codes
    ]
    ended = [process.communicate(timeout=300) for process in processes]
    return [subprocess.CompletedProcess(p.args, p.returncode, *said) for p, said in zip(processes, ended, strict=True)]


FIT_ELSEWHERE = """
from support import *
import jax
from poolwise.counts.cells import read_counts
devices.start_devices(platform='cpu', num_devices={n}, x64=True, num_chains=4, cache_dir='unused')
table = read_counts('data/cookies.csv', group='location', count='chips')
device = Device(platform='cpu', num_devices={n}, chain_method='map', x64=True)
print(jax.device_count(), digest(fit_cookies(table, **{asked!r}, device=device).posterior))
"""


def digests_elsewhere(*devices: int, **asked: Any) -> set[str]:
    """The digests of `fit_cookies(cookies, **asked)` in fresh processes with so many devices each."""
    done = at_once(*(FIT_ELSEWHERE.format(n=n, asked=asked) for n in devices))
    assert [each.returncode for each in done] == [0] * len(devices), [each.stderr for each in done]
    counted, found = zip(*(each.stdout.split() for each in done), strict=True)
    assert [int(each) for each in counted] == list(devices)
    return set(found)


@contextmanager
def process_put_back() -> Iterator[None]:
    """A command may change what belongs to its process: signal handlers, the environment, Hydra's state.

    It uses one device unless it asks for more: NUTS is compiled once for each.
    """
    handlers = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    hydra = Singleton.get_state()
    try:
        with patch.dict(os.environ), patch.object(devices, "usable_cores", lambda: 1):
            yield
    finally:
        Singleton.set_state(hydra)
        for each, handler in handlers.items():
            signal.signal(each, handler)


def called(*arguments: str, folder: Path, module: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m poolwise.run seed=3` in this process: without the seconds of imports, with the programs compiled."""
    out, err, command = io.StringIO(), io.StringIO(), importlib.import_module(module)
    with process_put_back(), chdir(folder), redirect_stdout(out), redirect_stderr(err):
        os.environ.update(environment)
        with patch.object(sys, "argv", [module, *arguments]):
            try:
                command.cli()
                code = 0
            except SystemExit as ended:
                code = int(ended.code or 0)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def started(*arguments: str, folder: Path, module: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The same in a fresh process."""
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | environment,
        check=False,
        timeout=300,
    )
