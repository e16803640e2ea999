"""The engines of this project, called as a run calls them, without its progress checks."""

from collections.abc import Callable
from dataclasses import replace

from bench.samplers.base import CHAINS, DRAWS, WARMUP, Draws, Problem

EXACT_DRAWS = 100_000  # a chain: independent draws cost so little that fewer measure the start alone
PEERS_TARGET = 0.8  # the default target acceptance of the peers


def exact(problem: Problem) -> Callable[[int], Draws]:
    """Independent draws."""
    return _engine(problem, name="exact", num_samples=EXACT_DRAWS)


def nuts(problem: Problem) -> Callable[[int], Draws]:
    """NUTS with the default settings of the project."""
    return _engine(problem, num_warmup=WARMUP, num_samples=DRAWS)


def nuts_at_peers_target(problem: Problem) -> Callable[[int], Draws]:
    """NUTS with the target acceptance of the peers."""
    return _engine(problem, num_warmup=WARMUP, num_samples=DRAWS, target_accept=PEERS_TARGET)


def _engine(problem: Problem, **settings: object) -> Callable[[int], Draws]:
    from poolwise.inference.devices import start_devices
    from poolwise.inference.engines import ENGINES
    from poolwise.model.count_model import sites_of
    from poolwise.model.priors import prior_values
    from poolwise.paths import outputs
    from support import DEVICE, PRIORS, SAMPLER, model_of

    sampler = replace(SAMPLER, num_chains=CHAINS, **settings)
    cache = str(outputs() / "jax-cache")
    num_devices = start_devices(platform="cpu", num_devices=None, x64=True, num_chains=CHAINS, cache_dir=cache)
    device = replace(DEVICE, num_devices=num_devices)
    model = model_of("hierarchical", problem.likelihood)
    values = prior_values(PRIORS, sites=sites_of("hierarchical", problem.likelihood))

    def draw(seed: int) -> Draws:
        fit = ENGINES[sampler.name].sample(model, problem.counts, values, seed=seed, sampler=sampler, device=device)
        return fit.posterior

    return draw
