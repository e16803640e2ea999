"""The code of the notebook that this project follows: plain NumPyro with sampled rates, four chains.

Its four virtual devices, single precision, progress bar and settings are kept. The notebook has no negative binomial
model: delta is added to it as the project has it.
"""

from collections.abc import Callable

import numpy as np

from bench.samplers.base import CHAINS, DRAWS, WARMUP, Draws, Problem


def prepare(problem: Problem) -> Callable[[int], Draws]:
    """Build the chains."""
    import jax
    import numpyro
    import numpyro.distributions as dist
    from numpyro.infer import MCMC, NUTS

    numpyro.set_host_device_count(4)
    group, count = problem.rows

    def model(group: np.ndarray, count: np.ndarray) -> None:
        mu = numpyro.sample("mu", dist.Gamma(2, 1 / 5))
        sigma = numpyro.sample("sigma", dist.Exponential(1))
        with numpyro.plate("location", problem.counts.num_groups):
            lam = numpyro.sample("lam", dist.Gamma(mu**2 / sigma**2, mu / sigma**2))
        if problem.is_overdispersed:
            delta = numpyro.sample("delta", dist.HalfNormal(0.5))
            law = dist.NegativeBinomial2(lam[group], 1 / delta**2)
        else:
            law = dist.Poisson(lam[group])
        numpyro.sample("count", law, obs=count)

    kernel = NUTS(model, target_accept_prob=0.9)
    mcmc = MCMC(kernel, num_warmup=WARMUP, num_samples=DRAWS, num_chains=CHAINS)

    def draw(seed: int) -> Draws:
        mcmc.run(jax.random.PRNGKey(seed), group, count)
        samples = mcmc.get_samples(group_by_chain=True)
        return {site: np.asarray(samples[site], float) for site in problem.sites}

    return draw
