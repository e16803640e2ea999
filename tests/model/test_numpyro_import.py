"""NumPyro is whole where ArviZ, which registers it as a module that is loaded later, was imported first."""

import pytest

from support import at_once

pytestmark = pytest.mark.process

FIRST_AFTER_ARVIZ = """
import arviz_stats
import {module}
import numpyro
print(hasattr(numpyro.distributions, 'distribution'), hasattr(numpyro.infer, 'hmc'))
"""


def test_numpyro_has_its_submodules_after_arviz():
    modules = ("poolwise.model.priors", "poolwise.inference.engines.nuts")
    done = at_once(*(FIRST_AFTER_ARVIZ.format(module=module) for module in modules))
    assert [each.stdout.split() for each in done] == [["True", "True"]] * 2, [each.stderr for each in done]
