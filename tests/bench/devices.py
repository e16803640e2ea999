"""Seconds of sampling on 1, 2 and 4 devices, of the same draws: a process with four virtual devices uses some of them.

The numbers of devices take turns in every round. The chains of the Poisson model are ten times as long as by default,
so that sampling is what is measured.
"""

import multiprocessing
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

from bench.base import Curves, Result, Settings, Table, tell

DEVICES = (1, 2, 4)
CASES = (  # engine, likelihood, draws of a chain, of four: ten times the default, where that takes seconds
    ("nuts", "poisson", 40_000),
    ("nuts", "negative_binomial", 4_000),
    ("exact", "poisson", 400_000),
    ("exact", "negative_binomial", 40_000),
)


def measure(settings: Settings) -> Result:
    """A row an engine and likelihood."""
    rows, series, metrics = [], {}, {}
    for engine, likelihood, num_samples in CASES:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            asked = (engine, likelihood, num_samples, settings.rounds, str(settings.scratch))
            seconds, same = pool.submit(timed, *asked).result()
        name = f"{engine}, {likelihood.replace('_', ' ')}, 4 x {num_samples:,}"
        ratios = [seconds[1] / seconds[num] for num in DEVICES[1:]]
        rows.append((name, *(seconds[num] for num in DEVICES), *ratios, "same bits" if same else "OTHER BITS"))
        series[name] = [(float(num), seconds[num]) for num in DEVICES]
        metrics |= {f"seconds/devices.{engine}.{likelihood}.{num}": seconds[num] for num in DEVICES}
        tell(f"{name}: 1 -> {DEVICES[1]} devices {ratios[0]:.2f} x")
    columns = ("cookies", *(f"{num} (s)" for num in DEVICES), *(f"1 -> {num}" for num in DEVICES[1:]), "draws")
    table = Table("devices", f"Sampling on devices, long chains (median of {settings.rounds})", columns, rows)
    curves = Curves("devices_seconds", "Seconds of sampling against devices", "devices", "seconds", series, slope=-1)
    return Result((table,), (curves,), metrics)


def timed(engine: str, likelihood: str, num_samples: int, rounds: int, cache_dir: str) -> tuple[dict[int, float], bool]:
    """The median seconds of each number of devices, and whether all gave the same bits."""
    from poolwise.counts.cells import read_counts
    from poolwise.inference.devices import start_devices
    from poolwise.inference.engines import ENGINES
    from poolwise.model.count_model import sites_of
    from poolwise.model.priors import prior_values
    from support import DEVICE, PRIORS, ROOT, SAMPLER, digest, model_of

    start_devices(platform="cpu", num_devices=max(DEVICES), x64=True, num_chains=4, cache_dir=cache_dir)
    counts = read_counts(ROOT / "data" / "cookies.csv", group="location", count="chips", name="cookies")
    model = model_of("hierarchical", likelihood)
    values = prior_values(PRIORS, sites=sites_of("hierarchical", likelihood))
    sampler = replace(SAMPLER, name=engine, num_samples=num_samples, checkpoint_every=num_samples)
    found: dict[int, list[float]] = {num: [] for num in DEVICES}
    digests = set()
    for seed in range(rounds + 1):  # the first round compiles
        in_round = set()
        for num in DEVICES:
            began = time.perf_counter()
            device = replace(DEVICE, num_devices=num)
            fit = ENGINES[engine].sample(model, counts, values, seed=seed, sampler=sampler, device=device)
            found[num].append(time.perf_counter() - began)
            in_round.add(digest(fit.posterior))
        digests.add(len(in_round))
    return {num: statistics.median(seconds[1:]) for num, seconds in found.items()}, digests == {1}
