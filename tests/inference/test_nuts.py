"""The sampler: against exact posteriors, and to the last bit against itself."""

from dataclasses import replace

import numpy as np
import pytest
from arviz_stats.base import array_stats

from poolwise.checks.exact.solve import solve
from poolwise.counts.cells import counts_from_rows
from poolwise.errors import DeviceError, FitError
from poolwise.inference import devices as devices_module
from poolwise.inference.engines import nuts
from poolwise.model.priors import prior_values
from support import (
    DEVICE,
    ONE_DEVICE,
    PRIORS,
    SAMPLER,
    VARIANTS,
    assert_moments_are_exact,
    digest,
    digests_elsewhere,
    fit_cookies,
    model_of,
    same_bits,
)

pytestmark = pytest.mark.fit

SHORT = replace(SAMPLER, num_warmup=150, num_samples=200, checkpoint_every=100)


@pytest.mark.parametrize(("pooling", "likelihood"), VARIANTS)
def test_posterior_means_and_sds_are_the_exact_ones(pooling, likelihood, fit_of, exact_of):
    exact, draws = exact_of(pooling, likelihood), fit_of(pooling, likelihood).posterior
    assert_moments_are_exact(draws, exact)


def test_exact_reference_agrees_with_published_digits(exact_of):
    # the log marginal likelihoods and elpd_loo that the project was given, to five decimals
    given = {
        ("pooled", "poisson"): (-423.99153, -421.97781),
        ("pooled", "negative_binomial"): (-416.07050, -413.09102),
        ("unpooled", "poisson"): (-401.94838, -394.77865),
        ("unpooled", "negative_binomial"): (-401.89579, -394.15496),
        ("hierarchical", "poisson"): (-401.68422, -394.83093),
        ("hierarchical", "negative_binomial"): (-401.60595, -394.24387),
    }
    for variant, values in given.items():
        exact = exact_of(*variant)
        assert (exact.log_marginal, exact.elpd_loo) == pytest.approx(values, abs=1e-5)


@pytest.mark.parametrize("chunk", [7, 6000])
def test_draws_do_not_depend_on_the_length_of_a_chunk(chunk, cookies, fit_of):
    found = fit_cookies(cookies, "hierarchical", "poisson", sampler=replace(SAMPLER, checkpoint_every=chunk))
    assert same_bits(found.posterior, fit_of("hierarchical", "poisson").posterior)


@pytest.mark.process
def test_draws_do_not_depend_on_the_number_of_devices_or_the_process(fit_of):
    # the fit of this process has one device and had other fits before it
    here = digest(fit_of("hierarchical", "negative_binomial").posterior)
    assert digests_elsewhere(2, 4, pooling="hierarchical", likelihood="negative_binomial") == {here}


def test_draws_do_not_depend_on_the_order_of_rows(cookies):
    group, _, count = cookies.rows()
    order = np.random.default_rng(1).permutation(cookies.num_rows)
    shuffled = counts_from_rows([cookies.labels[g] for g in group[order]], count[order])
    one, other = (fit_cookies(table, "unpooled", "poisson", sampler=SHORT) for table in (cookies, shuffled))
    assert same_bits(one.posterior, other.posterior)


def test_another_seed_gives_other_draws(cookies):
    one, other = (fit_cookies(cookies, "pooled", "poisson", seed=seed, sampler=SHORT) for seed in (0, 1))
    assert not same_bits(one.posterior, other.posterior)


def test_chains_differ_from_one_another(fit_of):
    chains = fit_of("pooled", "poisson").posterior["lam"]
    assert len({chain.tobytes() for chain in chains}) == 4


def test_other_values_seeds_and_counts_compile_nothing(cookies):
    fit_cookies(cookies, "hierarchical", "negative_binomial", sampler=SHORT)
    before = devices_module.programs_made()
    priors = PRIORS | {"sigma": {"name": "Exponential", "rate": 0.3}, "delta": {"name": "HalfNormal", "scale": 2.0}}
    fit_cookies(cookies, "hierarchical", "negative_binomial", sampler=SHORT, priors=priors, seed=7)
    group, _, count = cookies.rows()
    moved = counts_from_rows([cookies.labels[g] for g in group[::-1]], count)  # counts move to other groups
    assert moved.sha256 != cookies.sha256
    fit_cookies(moved, "hierarchical", "negative_binomial", sampler=SHORT)
    assert devices_module.programs_made() == before


def test_another_prior_family_compiles_another_program(cookies):
    # what the test above counts must be able to count
    before = sum(devices_module.programs_made().values())  # a run of the tests before this one may have left it
    priors = PRIORS | {"lam": {"name": "Weibull", "scale": 9.0, "concentration": 2.5}}
    fit_cookies(cookies, "unpooled", "poisson", sampler=SHORT, priors=priors)
    assert sum(devices_module.programs_made().values()) > before


def test_side_by_side_chains_find_the_same_posterior(cookies, exact_of):
    draws = fit_cookies(cookies, "unpooled", "poisson", device=replace(ONE_DEVICE, chain_method="vmap")).posterior[
        "lam"
    ]
    sample = np.moveaxis(draws, 2, 0)
    off = sample.mean((1, 2)) - exact_of("unpooled", "poisson").mean["lam"]
    assert np.all(np.abs(off) < 4 * array_stats.mcse(sample, method="mean"))


def test_exposure_scales_the_rate(cookies):
    # Gamma(2, 0.2) prior, 30 events in exposure 12 -> Gamma(32, 12.2)
    table = counts_from_rows(["a", "a", "a"], [10, 5, 15], [4.0, 2.0, 6.0])
    sample = fit_cookies(table, "pooled", "poisson").posterior["lam"]
    assert abs(sample.mean() - 32 / 12.2) < 4 * array_stats.mcse(sample, method="mean")


ODD = {
    "one row": (["a"], [4]),
    "all zero": (["a", "b"], [0, 0]),
    "a group of one row": (["a", "b", "b"], [3, 0, 12]),
    "large counts": (["a", "b"], [100_000, 90_000]),
}


@pytest.mark.parametrize(
    ("likelihood", "name"),
    [*(("poisson", name) for name in ODD), ("negative_binomial", "all zero"), ("negative_binomial", "large counts")],
)
def test_small_and_odd_tables_can_be_fitted(likelihood, name):
    draws = fit_cookies(counts_from_rows(*ODD[name]), "unpooled", likelihood, sampler=SHORT).posterior
    assert all(np.isfinite(value).all() for name, value in draws.items() if name != "phi")


def test_groups_that_are_nearly_equal_make_no_divergence():
    # sigma has its mode at 0 and a tail in which mu is known far less: a funnel of mu, unless mu is standardised
    alike = counts_from_rows(list("abcd"), [40, 46, 40, 42], np.full(4, 10.0))
    fits = [fit_cookies(alike, "hierarchical", "poisson", seed=seed) for seed in range(10)]
    assert sum(int(each.sample_stats["diverging"].sum()) for each in fits) == 0


@pytest.mark.parametrize(("low", "high"), [(8.0, 12.0), (0.0, 7.0)], ids=["around the data", "below them"])
def test_bounded_prior_of_the_mean_has_the_exact_posterior(low, high, cookies):
    priors = PRIORS | {"mu": {"name": "Uniform", "low": low, "high": high}}
    draws = fit_cookies(cookies, "hierarchical", "poisson", priors=priors)
    values = prior_values(priors, sites=("mu", "sigma"))
    exact = solve(model_of("hierarchical", "poisson", priors), cookies, values)
    assert_moments_are_exact(draws.posterior, exact)
    assert not draws.sample_stats["diverging"].any()


def test_progress_is_told_after_every_chunk_with_the_draws_so_far(cookies):
    told, shapes = [], []

    def look(progress):
        told.append((progress.phase, progress.done, progress.total))
        if progress.phase == "sampling":
            shapes.append(progress.posterior()["lam"].shape)

    nuts.sample(
        model_of("pooled", "poisson"),
        cookies,
        prior_values(PRIORS, sites=("lam",)),
        seed=0,
        sampler=replace(SHORT, num_samples=250),
        device=DEVICE,
        on_progress=look,
    )
    assert told == [
        ("warm-up", 100, 150),
        ("warm-up", 150, 150),
        ("sampling", 100, 250),
        ("sampling", 200, 250),
        ("sampling", 250, 250),
    ]
    assert shapes == [(4, 100), (4, 200), (4, 250)]


def fit_in_chunks(cookies, **changes):
    """A short hierarchical negative binomial fit, with the arguments of `sample` or `Sampler` that are given."""
    passed = {name: changes.pop(name) for name in ("resume_from", "on_chunk", "on_progress") if name in changes}
    sampler = replace(SHORT, **({"checkpoint_every": 50} | changes))
    values = prior_values(PRIORS, sites=("mu", "sigma", "delta"))
    model = model_of("hierarchical", "negative_binomial")
    return nuts.sample(model, cookies, values, seed=0, sampler=sampler, device=DEVICE, **passed)


def so_far(chunks):
    """The last of these chunks, with the draws of all."""
    drawn = [chunk.drawn for chunk in chunks if chunk.drawn]
    names = drawn[0] if drawn else {}
    return replace(chunks[-1], drawn={name: np.concatenate([each[name] for each in drawn], axis=1) for name in names})


@pytest.fixture(scope="module")
def unbroken(cookies):
    """The fit that goes through, and its chunks of 50 steps."""
    chunks = []
    return fit_in_chunks(cookies, on_chunk=chunks.append), chunks


def same_fit(one, other):
    return same_bits(one.posterior, other.posterior) and same_bits(one.sample_stats, other.sample_stats)


def test_chunk_holds_its_own_draws_and_comes_before_progress(cookies):
    told = []
    fit_in_chunks(
        cookies,
        checkpoint_every=70,
        on_chunk=lambda chunk: told.append((chunk.steps, *{draws.shape[:2] for draws in chunk.drawn.values()})),
        on_progress=lambda progress: told.append(progress.phase),
    )
    assert told == [
        *((70,), "warm-up", (140,), "warm-up", (150,), "warm-up"),
        *((220, (4, 70)), "sampling", (290, (4, 70)), "sampling", (350, (4, 60)), "sampling"),
    ]


@pytest.mark.parametrize("chunk", [50, 70])
def test_fit_goes_on_from_every_chunk_to_the_very_draws(chunk, cookies, unbroken):
    chunks = []
    whole = fit_in_chunks(cookies, checkpoint_every=chunk, on_chunk=chunks.append)
    assert same_fit(whole, unbroken[0])
    same = {
        each.steps: same_fit(fit_in_chunks(cookies, checkpoint_every=chunk, resume_from=so_far(chunks[: k + 1])), whole)
        for k, each in enumerate(chunks)
    }
    steps = {50: (50, 100, 150, 200, 250, 300, 350), 70: (70, 140, 150, 220, 290, 350)}[chunk]
    assert same == dict.fromkeys(steps, True)


@pytest.mark.parametrize("num_chunks", [2, 3, 5], ids=["in the warm-up", "after the warm-up", "in the sampling"])
@pytest.mark.parametrize("chunk", [70, 1000])
def test_fit_goes_on_in_chunks_of_another_length(chunk, num_chunks, cookies, unbroken):
    whole, chunks = unbroken
    assert same_fit(fit_in_chunks(cookies, checkpoint_every=chunk, resume_from=so_far(chunks[:num_chunks])), whole)


def test_going_on_gives_the_chunks_and_the_progress_that_were_left(cookies):
    # a target of 0.3 makes steps that diverge
    def watched(**begin):
        chunks, told = [], []
        fit_in_chunks(
            cookies,
            target_accept=0.3,
            on_chunk=chunks.append,
            on_progress=lambda p: told.append(
                (p.phase, p.done, p.total, p.divergences, p.step_size, p.phase == "sampling" and p.posterior())
            ),
            **begin,
        )
        return chunks, told

    chunks, told = watched()
    assert told[3][3] > 0
    for done in (1, 5):
        left, told_left = watched(resume_from=so_far(chunks[:done]))
        assert [each[:5] for each in told_left] == [each[:5] for each in told[done:]]
        assert all(same_bits(one[5], other[5]) for one, other in zip(told_left, told[done:], strict=True) if other[5])
        for one, other in zip(left, chunks[done:], strict=True):
            assert one.steps == other.steps
            assert same_bits(one.state, other.state)
            assert same_bits(one.drawn, other.drawn)


def test_seconds_of_a_fit_that_went_on_count_those_before(cookies, unbroken):
    chunks = []
    begin = replace(so_far(unbroken[1][:4]), seconds=1e6)
    found = fit_in_chunks(cookies, resume_from=begin, on_chunk=chunks.append)
    seconds = [begin.seconds, *(chunk.seconds for chunk in chunks), found.seconds["sample"]]
    assert sorted(set(seconds)) == seconds
    assert found.seconds["compile"] < 1e6


def test_going_on_compiles_nothing(cookies, unbroken):
    before = devices_module.programs_made()
    fit_in_chunks(cookies, resume_from=so_far(unbroken[1][:2]))
    assert devices_module.programs_made() == before


def test_complete_fit_is_assembled_without_a_program(cookies, unbroken):
    # chunks of 63 steps, which no other test has, would need a program that is not made yet
    whole, chunks = unbroken
    before = devices_module.programs_made()
    calls = []
    found = fit_in_chunks(
        cookies, checkpoint_every=63, resume_from=so_far(chunks), on_chunk=calls.append, on_progress=calls.append
    )
    assert same_fit(found, whole)
    assert calls == []
    assert devices_module.programs_made() == before


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            lambda s: {"state": s.state | {".energy": s.state[".energy"].astype("f4")}},
            r"state\.energy is float32 \(4,\) ",
        ),
        (lambda s: {"state": s.state | {".energy": s.state[".energy"][:2]}}, r"state\.energy is float64 \(2,\) there "),
        (lambda s: {"state": s.state | {".rng_key": s.state[".rng_key"][:, :1]}}, r"rng_key is uint32 \(4, 1\) there "),
        (lambda s: {"state": s.state | {".z['nu']": s.state[".energy"]}}, r"\.z\['nu'\] is .* and unknown here"),
        (lambda s: {"state": {k: v for k, v in s.state.items() if k != ".i"}}, r"state\.i is missing there and int64"),
        (lambda s: {"drawn": {k: v[:, 1:] for k, v in s.drawn.items()}}, r"is float64 \(4, 49\) there and .*\(4, 50\)"),
        (lambda s: {"drawn": {}}, r"is missing there and float64 \(4, 50\) here"),
        (lambda s: {"steps": 351}, r"steps is 351 there and at most 350 here"),
        (lambda s: {"steps": 100}, r"is float64 \(4, 50\) there and unknown here"),
    ],
    ids=[
        *("float32", "two chains", "other keys", "an unknown leaf", "a missing leaf"),
        *("too few draws", "no draws", "too many steps", "draws in the warm-up"),
    ],
)
def test_snapshot_of_another_kind_of_fit_is_refused(changed, message, cookies, unbroken):
    snapshot = so_far(unbroken[1][:4])
    with pytest.raises(FitError, match=message) as caught:
        fit_in_chunks(cookies, resume_from=replace(snapshot, **changed(snapshot)))
    assert "\n" not in str(caught.value)


def test_a_density_that_is_finite_nowhere_is_refused(cookies):
    priors = PRIORS | {"lam": {"name": "Uniform", "low": 0.0, "high": 1e-320}}
    with pytest.raises(FitError, match="no starting point"):
        fit_cookies(cookies, "pooled", "poisson", priors=priors, sampler=SHORT)


@pytest.mark.parametrize(
    ("cores", "num_chains", "expected"), [(1, 4, 1), (2, 4, 2), (3, 4, 2), (16, 4, 4), (3, 6, 3), (8, 5, 5), (4, 5, 1)]
)
def test_number_of_devices_is_the_largest_divisor_within_the_cores(cores, num_chains, expected):
    assert devices_module.choose_num_devices(None, num_chains=num_chains, platform="cpu", cores=cores) == expected


def test_devices_that_do_not_divide_the_chains_are_refused():
    with pytest.raises(DeviceError, match=r"does not divide .*=4\. Choose one of 1, 2, 4"):
        devices_module.choose_num_devices(3, num_chains=4, platform="cpu", cores=8)


@pytest.mark.parametrize("asked", [{"num_devices": 4}, {"platform": "gpu"}], ids=["more devices", "gpu"])
def test_devices_that_this_process_cannot_have_are_refused(asked, devices):
    settings = {"platform": "cpu", "num_devices": devices, "x64": True, "num_chains": 4, "cache_dir": "unused"}
    with pytest.raises(DeviceError, match=r"new process|new one"):
        devices_module.start_devices(**(settings | asked))


def test_a_process_with_more_devices_uses_the_first_ones(devices):
    settings = {"platform": "cpu", "x64": True, "num_chains": 4, "cache_dir": "unused"}
    assert devices > 1
    assert devices_module.start_devices(num_devices=1, **settings) == 1
