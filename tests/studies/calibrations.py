"""Simulation-based calibration of every variant on one small design: is each truth ranked uniformly by its posterior?

    PYTHONPATH=src:tests python -m studies.calibrations --simulations 500 [--seed 0] [--num-warmup 500] [--thin 3]
                                                        [--covariates] [--only TEXT] [--but-not TEXT]

Three groups of four rows with exposures 0.5, 1 and 3, and the priors of the notebook. A line for each likelihood,
pooling, population and parameterisation: the verdict with its smallest p (calibrated above 1% by the number of
quantities), the least ESS per kept draw (correlated draws rank a truth too often first or last: raise --thin),
simulations whose fit diverged or was lost, seconds. With --covariates, rates also depend on a level and on a number,
and the line has the shares of truths of both effects in their central 94% intervals.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import jax

from poolwise.calibration.findings import examine
from poolwise.calibration.fits import Plan, Recovered, recover
from poolwise.calibration.ranks import LEVEL
from poolwise.calibration.simulation import simulate
from poolwise.counts.cells import Counts, counts_from_rows
from poolwise.inference.devices import start_devices
from poolwise.inference.settings import Device
from poolwise.model.count_model import Model
from poolwise.model.priors import prior_values
from support import PRIORS, every_variant

PLAN = Plan(num_warmup=500, target_accept=0.9, max_tree_depth=10, draws=99, thin=3)
INSIDE = 3, 96  # ranks among 99 draws in the central 94%


def design(*, has_covariates: bool) -> Counts:
    """The groups, exposures and covariates; the counts are not used."""
    columns = {"drug": list("nynyynnyyynn"), "age": list("123413322414")} if has_covariates else {}
    return counts_from_rows(list("aaaabbbbcccc"), [1] * 12, [0.5, 1, 3, 1] * 3, covariates=columns)


def calibrated(
    model: Model, counts: Counts, simulations: int, device: Device, *, seed: int = 0, plan: Plan = PLAN
) -> str:
    """The findings of one variant, in a line."""
    began = time.perf_counter()
    values = prior_values(PRIORS, sites=tuple(site for site, _ in model.families))
    simulated = simulate(model, counts, values, seed=seed, simulations=simulations)
    with tempfile.TemporaryDirectory() as folder:
        asked = {"seed": seed, "plan": plan, "device": device, "batch": simulations, "folder": Path(folder)}
        found = recover(model, counts, simulated, values, **asked)
    judged = examine(found)
    worst = judged.table["p"].idxmin()
    told = f"{judged.status}, p {judged.table['p'].min():.2g} ({worst}; limit {LEVEL / len(judged.table):.2g})"
    told += f", ESS per draw {judged.table['ess_per_draw'].min():.2f}"
    covered = "".join(f", {name} covered {share:.1%}" for name, share in coverage(found).items())
    seconds = time.perf_counter() - began
    return f"{told}{covered}, {judged.divergent} diverged, {judged.lost} lost, {seconds:.0f} s"


def coverage(found: Recovered) -> dict[str, float]:
    """Effect -> the share of simulations with the truth in the central 94% interval."""
    inside = (INSIDE[0] <= found.rank) & (found.rank <= INSIDE[1])
    shares = inside[found.is_fitted].mean(axis=0)
    return {name: float(share) for name, share in zip(found.names, shares, strict=True) if name.startswith("beta.")}


def main() -> None:
    """Print the study, a line as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=500)
    parser.add_argument("--covariates", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num-warmup", type=int, default=PLAN.num_warmup)
    parser.add_argument("--thin", type=int, default=PLAN.thin)
    parser.add_argument("--only", default="")
    parser.add_argument("--but-not", default="\0")
    asked = parser.parse_args()
    num_devices = start_devices(platform="cpu", num_devices=2, x64=True, num_chains=2, cache_dir="")
    device = Device(platform="cpu", num_devices=num_devices, chain_method="map", x64=True)
    counts = design(has_covariates=asked.covariates)
    plan = replace(PLAN, num_warmup=asked.num_warmup, thin=asked.thin)
    for name, model in every_variant(counts.effects):
        if asked.only in name and asked.but_not not in name:
            line = calibrated(model, counts, asked.simulations, device, seed=asked.seed, plan=plan)
            print(f"{name}: {line}", flush=True)
            jax.clear_caches()


if __name__ == "__main__":
    main()
