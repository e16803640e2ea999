"""Effective draws a second of every variant on the cookies, by NUTS with the default lengths.

All are sampled in one process: once to compile, then with other seeds. R-hat of every draw stands beside them, for
numbers of chains that have not mixed mean little.
"""

import multiprocessing
import statistics
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

from bench.base import Result, Settings, Table, tell

COLUMNS = ("variant", "compile (s)", "sample (s)", "ESS/s", "lowest", "highest", "largest R-hat", "diverged")


def measure(settings: Settings) -> Result:
    """A row a variant."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        rows = pool.submit(timed, settings.rounds, str(settings.scratch)).result()
    title = (
        "Every variant on the cookies, nuts, 4 x (2000 + 4000) draws "
        f"(smallest bulk ESS over all parameters; compiled; median of {settings.rounds})"
    )
    metrics = {f"ess_per_second/{'.'.join(name.split())}": rate for name, _, _, rate, *_ in rows}
    return Result((Table("variants", title, COLUMNS, rows),), (), metrics)


def timed(rounds: int, cache_dir: str) -> list[tuple[str | float, ...]]:
    """The rows, measured in this process."""
    from poolwise.counts.cells import read_counts
    from poolwise.inference.devices import start_devices
    from support import NUM_DEVICES, ROOT

    start_devices(platform="cpu", num_devices=NUM_DEVICES, x64=True, num_chains=4, cache_dir=cache_dir)
    counts = read_counts(ROOT / "data" / "cookies.csv", group="location", count="chips", name="cookies")
    return list(rows_of(counts, rounds))


def rows_of(counts: object, rounds: int) -> Iterator[tuple[str | float, ...]]:
    """Sample every variant; programs are dropped after each, as hundreds fill the memory."""
    import jax

    from poolwise.inference.engines.nuts import sample
    from poolwise.model.priors import prior_values
    from support import DEVICE, PRIORS, SAMPLER, every_variant

    for name, model in every_variant():
        values = prior_values(PRIORS, sites=tuple(site for site, _ in model.families))
        fits = [sample(model, counts, values, seed=seed, sampler=SAMPLER, device=DEVICE) for seed in range(rounds + 1)]
        effective, r_hat = zip(*(mixing(fit.posterior) for fit in fits[1:]), strict=True)
        seconds = [fit.seconds["sample"] for fit in fits[1:]]
        rates = [n / s for n, s in zip(effective, seconds, strict=True)]
        diverged = sum(int(fit.sample_stats["diverging"].sum()) for fit in fits[1:])
        compiled, sampled, rate = fits[0].seconds["compile"], statistics.median(seconds), statistics.median(rates)
        yield name, compiled, sampled, rate, min(rates), max(rates), max(r_hat), float(diverged)
        tell(f"{name}: compiled in {compiled:.1f} s, sampled in {sampled:.2f} s, {rate:,.0f} effective draws a second")
        jax.clear_caches()


def mixing(posterior: dict) -> tuple[float, float]:
    """The smallest bulk ESS and the largest R-hat over all parameters."""
    from arviz_stats.base import array_stats

    from support import by_parameter

    draws = [by_parameter(each) for each in posterior.values()]
    return (
        min(float(array_stats.ess(each, method="bulk").min()) for each in draws),
        max(float(array_stats.rhat(each).max()) for each in draws),
    )
