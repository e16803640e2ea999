"""Seconds per stage of a default run: cold, warm in a new process, and with another prior value.

    make bench                      three rounds of each, medians
    make bench ARGS="--rounds 5"

Every run is a process of its own in a scratch folder; "cold" starts without a compilation cache. Machines differ and
are shared, so compare the columns of one table, not two tables.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUNS = {  # name -> overrides, in the order they are made
    "cold": [],
    "warm": [],
    "other prior value": ["prior.sigma.rate=0.5"],
    "other seed": ["seed=1"],
}


def measure(overrides: list[str], outputs: Path) -> dict[str, float]:
    """Run once; the metrics that the run logged, and the seconds of the whole process."""
    environment = os.environ | {"POOLWISE_OUTPUTS": str(outputs)}
    began = time.perf_counter()
    command = [sys.executable, "-m", "poolwise.run", *overrides]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - began
    newest = max((outputs / "runs").glob("*/record.json"), key=os.path.getmtime)
    metrics: dict[str, float] = json.loads(newest.read_text())["metrics"]
    return metrics | {"process": seconds}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    found: dict[str, list[dict[str, float]]] = {name: [] for name in RUNS}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as scratch:
            for name, overrides in RUNS.items():
                found[name].append(measure(overrides, Path(scratch)))
    stages = [key for key in found["warm"][0] if key.startswith("seconds/")]
    print(f"{'median of ' + str(rounds):<24}" + "".join(f"{name:>20}" for name in RUNS))
    for key in (*stages, "seconds_total", "process", "programs/compiled", "programs/loaded"):
        medians = (statistics.median(each[key] for each in found[name]) for name in RUNS)
        print(f"{key:<24}" + "".join(f"{value:>20.2f}" for value in medians))


if __name__ == "__main__":
    main()
