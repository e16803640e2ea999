"""The three models of the notebook from its own steps in plain NumPyro and ArviZ; run as a script.

    python notebook_models.py cookies.csv FOLDER       pictures go to the folder

Per model: prior predictive draws, four chains of 2000 + 4000 steps, posterior predictive draws, summary, traces,
posterior predictive check, intervals; then the comparison by leave-one-out.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import arviz as az
import jax
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
from numpyro.infer import MCMC, NUTS, Predictive

numpyro.set_host_device_count(4)
GROUPS = 5


def pooled(group: np.ndarray, count: np.ndarray | None = None) -> None:
    """One rate."""
    lam = numpyro.sample("lam", dist.Gamma(2, 1 / 5))
    with numpyro.plate("row", len(group)):
        numpyro.sample("count", dist.Poisson(lam), obs=count)


def unpooled(group: np.ndarray, count: np.ndarray | None = None) -> None:
    """Independent rates."""
    with numpyro.plate("location", GROUPS):
        lam = numpyro.sample("lam", dist.Gamma(2, 1 / 5))
    with numpyro.plate("row", len(group)):
        numpyro.sample("count", dist.Poisson(lam[group]), obs=count)


def hierarchical(group: np.ndarray, count: np.ndarray | None = None) -> None:
    """Rates from one population."""
    mu = numpyro.sample("mu", dist.Gamma(2, 1 / 5))
    sigma = numpyro.sample("sigma", dist.Exponential(1))
    with numpyro.plate("location", GROUPS):
        lam = numpyro.sample("lam", dist.Gamma(mu**2 / sigma**2, mu / sigma**2))
    with numpyro.plate("row", len(group)):
        numpyro.sample("count", dist.Poisson(lam[group]), obs=count)


def fitted(model: Callable, group: np.ndarray, count: np.ndarray, folder: Path) -> object:
    """A model's draws, as ArviZ has them, with its pictures in the folder."""
    keys = jax.random.split(jax.random.PRNGKey(0), 3)
    prior = Predictive(model, num_samples=2000)(keys[0], group)
    mcmc = MCMC(NUTS(model, target_accept_prob=0.9), num_warmup=2000, num_samples=4000, num_chains=4)
    mcmc.run(keys[1], group, count)
    predicted = Predictive(model, mcmc.get_samples())(keys[2], group)
    tree = az.from_numpyro(mcmc, prior=prior, posterior_predictive=predicted, log_likelihood=True)
    print(az.summary(tree, var_names=["lam"]))
    for plot in (az.plot_trace_dist, az.plot_forest, az.plot_ppc_dist):
        plot(tree)
        plt.savefig(folder / f"{model.__name__}_{plot.__name__}.png")
        plt.close("all")
    return tree


def main() -> None:
    """Fit and compare."""
    path, folder = map(Path, sys.argv[1:])
    table = pd.read_csv(path)
    group, count = table["location"].to_numpy() - 1, table["chips"].to_numpy()
    plt.hist(count, bins=20)
    plt.savefig(folder / "counts.png")
    trees = {each.__name__: fitted(each, group, count, folder) for each in (pooled, unpooled, hierarchical)}
    print(az.compare(trees))


if __name__ == "__main__":
    main()
