"""nutpie on the model in PyMC, with sampled rates."""

from collections.abc import Callable

import numpy as np

from bench.samplers.base import CHAINS, DRAWS, WARMUP, Draws, Problem


def prepare(problem: Problem) -> Callable[[int], Draws]:
    """Compile the model."""
    import nutpie
    import pymc as pm

    group, count = problem.rows
    with pm.Model() as model:
        mu = pm.Gamma("mu", 2, 1 / 5)
        sigma = pm.Exponential("sigma", 1)
        lam = pm.Gamma("lam", mu**2 / sigma**2, mu / sigma**2, shape=problem.counts.num_groups)
        if problem.is_overdispersed:
            delta = pm.HalfNormal("delta", 0.5)
            pm.NegativeBinomial("count", mu=lam[group], alpha=1 / delta**2, observed=count)
        else:
            pm.Poisson("count", lam[group], observed=count)
    compiled = nutpie.compile_pymc_model(model)

    def draw(seed: int) -> Draws:
        tree = nutpie.sample(compiled, tune=WARMUP, draws=DRAWS, chains=CHAINS, seed=seed, progress_bar=False)
        return {site: np.asarray(tree.posterior[site]) for site in problem.sites}

    return draw
