"""Effective draws per second of the engines on the cookies, for the table in docs/models.md.

    .venv/bin/python tests/bench_engines.py

The smallest bulk ESS over all parameters by the seconds of sampling: compiled, median of three fits, all engines in one
process. NUTS has its default length, independent draws 400,000. Machines differ and are shared, so compare the columns.
"""

import statistics
import tempfile
from dataclasses import replace

import numpy as np
from arviz_stats.base import array_stats

from poolwise.counts.cells import read_counts
from poolwise.inference.devices import start_devices

start_devices(platform="cpu", num_devices=2, x64=True, num_chains=4, cache_dir=tempfile.mkdtemp())

from poolwise.inference.engines import ENGINES  # noqa: E402  (JAX has its devices now)
from poolwise.inference.engines.base import Fit  # noqa: E402
from poolwise.model.count_model import sites_of  # noqa: E402
from poolwise.model.priors import prior_values  # noqa: E402
from support import DEVICE, PRIORS, ROOT, SAMPLER, VARIANTS, model_of  # noqa: E402

DRAWS = {"nuts": 4000, "exact": 100_000}  # per chain


def least_effective(fit: Fit) -> float:
    """The smallest bulk ESS over all parameters."""
    samples = (np.moveaxis(each.reshape(*each.shape[:2], -1), 2, 0) for each in fit.posterior.values())
    return min(float(array_stats.ess(each, method="bulk").min()) for each in samples)


def main() -> None:
    """Print the table."""
    counts = read_counts(ROOT / "data" / "cookies.csv", group="location", count="chips", name="cookies")
    print(f"{'effective draws a second':<34}" + "".join(f"{name:>12}" for name in DRAWS))
    for pooling, likelihood in VARIANTS:
        model, values = model_of(pooling, likelihood), prior_values(PRIORS, sites=sites_of(pooling, likelihood))
        found = []
        for name, num_samples in DRAWS.items():
            sampler = replace(SAMPLER, name=name, num_samples=num_samples)
            fits = [
                ENGINES[name].sample(model, counts, values, seed=1, sampler=sampler, device=DEVICE) for _ in range(4)
            ]
            seconds = statistics.median(each.seconds["sample"] for each in fits[1:])  # the first compiles
            found.append(least_effective(fits[-1]) / seconds)
        print(f"{pooling + ' ' + likelihood:<34}" + "".join(f"{value:>12,.0f}" for value in found), flush=True)


if __name__ == "__main__":
    main()
