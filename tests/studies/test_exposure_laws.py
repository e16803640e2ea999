"""The study of the two exposure laws, in small: no table is decided wrongly, and the true law predicts right."""

import numpy as np
import pytest

from studies.exposure_laws import LAWS, study


@pytest.mark.slow
def test_the_true_law_predicts_other_exposures_and_is_never_refuted():
    for truth, found in study(40).items():
        other = LAWS[1 - LAWS.index(truth)]
        assert other not in [each.check for each in found]
        assert [each.elpd for each in found].count(other) <= 1
        for exposure in (1, 10):
            right, wrong = (np.mean([each.spread[law, exposure] for each in found]) for law in (truth, other))
            assert abs(right - 1) < 0.05 < 0.2 < abs(wrong - 1)
