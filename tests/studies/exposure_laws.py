"""The two laws of overdispersion on simulated tables: predictions, the check of exposures, and elpd.

    PYTHONPATH=tests python -m studies.exposure_laws --tables 200

Counts of independent units with mean lam and concentration 3 each, or of rows with concentration 3, in six groups of 25
rows with exposures 1, 2, 5 and 10; lam has mean 4.5 and standard deviation 1.5 over groups. The exact posteriors of
both laws with independent rates of the groups are found for every table. Printed: the standard deviation of a count of
exposure 1 and 10 at lam = 4.5 as each law predicts it, over the true one; what the check says; and which law elpd_loo
prefers by the rule of a comparison.
"""

import argparse
from collections import Counter
from dataclasses import dataclass

import numpy as np

from poolwise.checks import exposure_law
from poolwise.checks.exact.solve import solve
from poolwise.comparison.differences import is_tie, standard_error
from poolwise.counts.cells import Counts, counts_from_rows
from poolwise.model.count_model import count_model, sites_of
from poolwise.model.priors import prior_values
from support import PRIORS

LAWS = ("row", "unit")
LAM, PHI = 4.5, 3.0


@dataclass(frozen=True)
class Outcome:
    """What is found in one table: (law, exposure) -> predicted over true sd; the check's law; elpd's law."""

    spread: dict[tuple[str, int], float]
    check: str
    elpd: str


def simulated(law: str, seed: int) -> Counts:
    """A table of one law."""
    rng = np.random.default_rng([seed, LAWS.index(law)])
    lam, group = rng.gamma(9.0, 0.5, 6), np.repeat(np.arange(6), 25)
    exposure = rng.choice([1.0, 2.0, 5.0, 10.0], 150)
    phi = PHI * (exposure if law == "unit" else np.ones(150))
    counts = rng.poisson(rng.gamma(phi, exposure * lam[group] / phi))
    return counts_from_rows([f"g{g}" for g in group], counts, exposure)


def sd_of(law: str, delta2: float, exposure: int) -> float:
    """Standard deviation of a count at lam = 4.5, for the mean of delta^2."""
    mean = exposure * LAM
    return float(np.sqrt(mean + delta2 * mean**2 / (exposure if law == "unit" else 1)))


def outcome(truth: str, seed: int) -> Outcome:
    """Both laws fitted to one table."""
    counts, spread, cells = simulated(truth, seed), {}, {}
    families = {site: PRIORS[site]["name"] for site in sites_of("unpooled", "negative_binomial")}
    values = prior_values(PRIORS, sites=tuple(families))
    for law in LAWS:
        answer = solve(count_model("unpooled", "negative_binomial", families, overdispersion=law), counts, values)
        cells[law], delta2 = answer.cell_elpd, float(answer.mean["delta"] ** 2 + answer.sd["delta"] ** 2)
        for exposure in (1, 10):
            spread[law, exposure] = sd_of(law, delta2, exposure) / sd_of(truth, 1 / PHI, exposure)
    total, weight = float(counts.cell_multiplicity @ (cells["unit"] - cells["row"])), counts.cell_multiplicity
    tied = is_tie(total, standard_error(cells["unit"], cells["row"], weight))
    ratio = exposure_law.log_ratio(counts, is_shared=False)
    said = "undecided" if abs(ratio) < exposure_law.DECIDED else LAWS[int(ratio > 0)]
    return Outcome(spread, said, "undecided" if tied else LAWS[int(total > 0)])


def study(tables: int) -> dict[str, list[Outcome]]:
    """Outcomes by the true law."""
    return {truth: [outcome(truth, seed) for seed in range(tables)] for truth in LAWS}


def main() -> None:
    """Print the study."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=int, default=200)
    for truth, found in study(parser.parse_args().tables).items():
        print(f"truth: overdispersion={truth}, {len(found)} tables")
        for law in LAWS:
            for exposure in (1, 10):
                ratio = np.array([each.spread[law, exposure] for each in found])
                print(f"  sd at exposure {exposure:2} by {law:4}: {ratio.mean():.3f} x true (sd {ratio.std():.3f})")
        print(f"  check: {dict(Counter(each.check for each in found))}")
        print(f"  elpd:  {dict(Counter(each.elpd for each in found))}")


if __name__ == "__main__":
    main()
