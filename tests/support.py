"""What several test files say in the same way."""

from pathlib import Path
from typing import Any

import numpy as np
import yaml
from arviz_stats.base import array_stats

from poolwise.counts.cells import Counts
from poolwise.inference.engines.base import Fit
from poolwise.inference.engines.nuts import sample as fit
from poolwise.inference.settings import Device, Sampler
from poolwise.model.count_model import Model, count_model, sites_of
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
DEVICE = Device(platform="cpu", num_devices=2, chain_method="map", x64=True)


def model_of(pooling: str, likelihood: str, priors: dict = PRIORS, parameterisation: str | None = None) -> Model:
    """A variant with these priors; sampled in the default parameterisation of its pooling unless one is given."""
    families = {site: priors[site]["name"] for site in sites_of(pooling, likelihood)}
    return count_model(pooling, likelihood, families, parameterisation)


def fit_cookies(
    counts: Counts,
    pooling: str,
    likelihood: str,
    *,
    priors: dict = PRIORS,
    seed: int = 0,
    sampler: Sampler = SAMPLER,
    device: Device = DEVICE,
    parameterisation: str | None = None,
) -> Fit:
    """A fit with everything as in the default config but what is given."""
    values = prior_values(priors, sites=sites_of(pooling, likelihood))
    model = model_of(pooling, likelihood, priors, parameterisation)
    return fit(model, counts, values, seed=seed, sampler=sampler, device=device)


def same_bits(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    """Whether two sets of draws are equal to the last bit."""
    return one.keys() == other.keys() and all(one[name].tobytes() == other[name].tobytes() for name in one)


def assert_moments_are_exact(draws: dict[str, np.ndarray], exact: Any) -> None:
    """Means and standard deviations within four Monte Carlo errors of those of `exact_reference`."""
    for name, mean in exact.mean.items():
        sample = np.moveaxis(draws[name].reshape(*draws[name].shape[:2], -1), 2, 0)  # (P, chain, draw)
        off = sample.mean((1, 2)) - np.ravel(mean)
        assert np.all(np.abs(off) < 4 * array_stats.mcse(sample, method="mean")), f"mean of {name}"
        off = sample.std((1, 2), ddof=1) - np.ravel(exact.sd[name])
        assert np.all(np.abs(off) < 4 * array_stats.mcse(sample, method="sd")), f"sd of {name}"
