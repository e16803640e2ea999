"""What every engine promises, held for all of them."""

from dataclasses import replace

import numpy as np
import pytest
from arviz_stats.base import array_stats

from poolwise.checks import gate, loo
from poolwise.checks.summary import summarise
from poolwise.counts.cells import counts_from_rows
from poolwise.inference.datatree import to_tree
from poolwise.inference.engines import ENGINES
from poolwise.model.priors import prior_values
from support import DEVICE, PRIORS, SAMPLER, model_of, same_bits

pytestmark = pytest.mark.fit

LOO = loo.Loo(-400.0, 10.0, 5.0, 0.1, np.zeros(3), np.zeros(3), 0.7, 0)


@pytest.fixture(params=ENGINES)
def engine(request):
    return ENGINES[request.param]


def sampled(engine, counts, pooling="hierarchical", *, num_warmup=300, num_samples=500, every=500, **asked):
    model = model_of(pooling, "poisson")
    values = prior_values(PRIORS, sites=tuple(site for site, _ in model.families))
    sampler = replace(SAMPLER, name=engine.name, num_warmup=num_warmup, num_samples=num_samples, checkpoint_every=every)
    return engine.sample(model, counts, values, seed=2, sampler=sampler, device=DEVICE, **asked)


def test_registered_under_its_own_name_and_takes_every_model_or_says_why_not(engine):
    assert ENGINES[engine.name] is engine
    assert engine.refusal(model_of("pooled", "poisson")).endswith((".", ""))


def test_draws_are_named_and_shaped(engine, cookies):
    fit = sampled(engine, cookies)
    assert {name: each.shape for name, each in fit.posterior.items()} == {
        **dict.fromkeys(("alpha", "beta", "mu", "sigma"), (4, 500)),
        "lam": (4, 500, 5),
    }
    assert "lp" in fit.sample_stats
    assert {each.shape for each in fit.sample_stats.values()} == {(4, 500)}
    assert fit.seconds.keys() == {"compile", "sample"}


def test_a_grouped_table_has_the_draws_of_its_rows_to_the_bit(engine, cookies):
    labels, cells = np.array(cookies.labels)[cookies.cell_group], (cookies.cell_count, None, cookies.cell_multiplicity)
    grouped = counts_from_rows(labels[::-1], *(each if each is None else each[::-1] for each in cells))
    one, other = (sampled(engine, counts, num_samples=100).posterior for counts in (grouped, cookies))
    assert same_bits(one, other)


def test_statistics_are_judged_by_the_gate(engine, cookies):
    fit = sampled(engine, cookies, num_samples=2000)
    tree = to_tree(fit.posterior, fit.sample_stats, cookies)
    summary, stats = summarise(tree["posterior"].to_dataset()), tree["sample_stats"].to_dataset()
    verdict = gate.judge(summary, stats, LOO, max_tree_depth=10)
    assert verdict.status == "trusted"
    assert verdict.engine and all(np.isfinite(value) for value in verdict.engine.values())


def test_posterior_is_the_conjugate_one(engine, cookies):
    # Gamma(2, 0.2) prior, 150 cookies, 1373 chips -> Gamma(1375, 150.2)
    lam = sampled(engine, cookies, "pooled", num_samples=2000).posterior["lam"]
    assert abs(lam.mean() - 1375 / 150.2) < 4 * array_stats.mcse(lam, method="mean")
    assert abs(lam.std(ddof=1) - np.sqrt(1375) / 150.2) < 4 * array_stats.mcse(lam, method="sd")


def test_chunks_change_no_draw_and_a_fit_resumes_from_any(engine, cookies):
    saved, seen = [], []
    whole = sampled(engine, cookies)
    chunked = sampled(engine, cookies, every=200, on_chunk=saved.append, on_progress=seen.append)
    assert same_bits(chunked.posterior, whole.posterior)
    done = [progress.done for progress in seen if progress.phase == "sampling"]
    assert done == ([200, 400, 500] if saved else [500])
    if not saved:  # an engine that takes less time than a checkpoint: a killed fit starts again
        return
    # a snapshot holds the draws of its own chunk: the caller joins those of the chunks before
    last_warm = max((each for each in saved if not each.drawn), key=lambda each: each.steps)
    assert same_bits(sampled(engine, cookies, resume_from=last_warm).posterior, whole.posterior)
