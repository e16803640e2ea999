"""The configs of the jobs of a grid: the same as Hydra composes, one by one."""

from types import SimpleNamespace

import pytest
from hydra import compose
from hydra.plugins.sweeper import Sweeper

from poolwise.arguments import as_typed, composing
from poolwise.config import check
from poolwise.errors import ConfigError
from poolwise.help import register
from poolwise.paths import register_resolvers
from poolwise.sweeps import launch, request

GRID = (
    *("-m", "pooling=pooled,hierarchical", "prior.sigma.rate=0.5,1.5", "plots=none", "seed=3"),
    *("predict.above=[1,2]", "data.name=a b", "prior.mu={name: Weibull, scale: 2, concentration: 1.5}"),
)


@pytest.fixture(scope="module", autouse=True)
def resolvers() -> None:
    register_resolvers()
    register()


def requested(*arguments: str) -> request.Request:
    found = request.requested(as_typed(list(arguments)))
    assert found is not None
    return found


def test_the_configs_of_a_grid_are_those_that_hydra_composes():
    asked = requested(*GRID)
    with composing(None):
        expected = [check(compose("config", overrides=list(job))) for job in asked.jobs]
    assert request.checked(asked) == expected
    assert len({config.model_dump_json() for config in expected}) == 3  # a pooled model has no sigma


def test_jobs_that_differ_in_values_alone_are_composed_once(monkeypatch):
    asked, composed = requested(*GRID), []
    monkeypatch.setattr(request, "compose", lambda *names, overrides: composed.append(1) or compose(*names, overrides))
    request.checked(asked)
    assert len(composed) == 2  # one a pooling


def test_a_value_for_an_unknown_key_is_refused_with_the_number_of_its_job():
    with pytest.raises(ConfigError, match=r"job 1: unknown key sampler\.num_sample\. Did you mean"):
        request.checked(requested("-m", "sampler.num_sample=5,6"))


def test_hydra_composes_the_jobs_not_once_more_before_the_first():
    sweeper = SimpleNamespace(config_loader=None)  # which cannot compose
    with launch.composed_before():
        Sweeper.validate_batch_is_legal(sweeper, [["seed=1"]])
    with pytest.raises(AssertionError):
        Sweeper.validate_batch_is_legal(sweeper, [["seed=1"]])
