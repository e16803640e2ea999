"""NUTS of Stan through PyStan, with sampled rates."""

import contextlib
import tempfile
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from bench.samplers.base import CHAINS, DRAWS, WARMUP, Draws, Problem

PROGRAM = """
data {
  int<lower=1> N;
  int<lower=1> G;
  array[N] int<lower=1> group;
  array[N] int<lower=0> count;
}
parameters {
  real<lower=0> mu;
  real<lower=0> sigma;
  vector<lower=0>[G] lam;
  DELTA
}
model {
  mu ~ gamma(2, 0.2);
  sigma ~ exponential(1);
  lam ~ gamma(square(mu / sigma), mu / square(sigma));
  COUNT
}
"""
POISSON = {"DELTA": "", "COUNT": "count ~ poisson(lam[group]);"}
NEGATIVE_BINOMIAL = {
    "DELTA": "real<lower=0> delta;",
    "COUNT": "delta ~ normal(0, 0.5); count ~ neg_binomial_2(lam[group], inv_square(delta));",
}


def prepare(problem: Problem) -> Callable[[int], Draws]:
    """Compile the program."""
    import stan

    program = PROGRAM
    for word, code in (NEGATIVE_BINOMIAL if problem.is_overdispersed else POISSON).items():
        program = program.replace(word, code)
    group, count = problem.rows
    data = {"N": len(count), "G": problem.counts.num_groups, "group": (group + 1).tolist(), "count": count.tolist()}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):  # where it leaves object files
        model = stan.build(program, data=data)

    def draw(seed: int) -> Draws:
        fit = replace(model, random_seed=seed).sample(num_chains=CHAINS, num_warmup=WARMUP, num_samples=DRAWS)
        return {site: _by_chain(fit[site], scalar=site != "lam") for site in problem.sites}

    return draw


def _by_chain(draws: np.ndarray, *, scalar: bool) -> np.ndarray:
    """Draws of PyStan (..., draw and chain), the chain running fastest, to (chain, draw, ...)."""
    split = np.moveaxis(draws.reshape(*draws.shape[:-1], DRAWS, CHAINS), (-1, -2), (0, 1))
    return split[..., 0] if scalar else split
