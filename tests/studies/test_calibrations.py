"""The study of all calibrations: what it goes through, and what it counts as covered."""

from types import SimpleNamespace

import numpy as np
import pytest

from poolwise.model.likelihoods import EVERY_LIKELIHOOD
from poolwise.model.poolings import EVERY_POOLING
from studies.calibrations import calibrated, coverage, design
from support import DEVICE, every_variant


def test_every_variant_is_gone_through_once():
    names = [name for name, _ in every_variant()]
    offered = [each for pooling in EVERY_POOLING for noise in EVERY_LIKELIHOOD for each in pooling.offered(noise)]
    assert len(names) == len({*names}) == len(offered)


def test_coverage_is_the_share_of_ranks_in_the_central_94_of_100():
    rank = np.stack([np.arange(100), np.zeros(100)], axis=1)
    found = SimpleNamespace(names=("beta.x", "mu"), rank=rank.astype(int), is_fitted=np.ones(100, bool))
    assert coverage(found) == {"beta.x": 0.94}


@pytest.mark.slow
def test_a_variant_with_covariates_is_calibrated():
    counts = design(has_covariates=True)
    chosen = dict(every_variant(counts.effects))["poisson unpooled centred"]
    assert calibrated(chosen, counts, 60, DEVICE).startswith("calibrated, p ")
