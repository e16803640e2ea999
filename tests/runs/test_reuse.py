"""Which finished run makes a fit unnecessary, and what a near miss is said to differ in."""

import json

import pytest
import xarray as xr

from poolwise.provenance.fingerprints import fingerprint, posterior_digests
from poolwise.runs import reuse
from poolwise.tracking import run as tracking
from poolwise.tracking.record import Record

PARAMS = {"pooling.name": "pooled", "seed": 0, "sampler.num_samples": 4000, "sampler.checkpoint_every": 1000}
INGREDIENTS = {
    "numpyro": "0.23.0",
    "seed": 0,
    "source": {"fit.py": "b"},
    "all_source": "b",
    "data_sha256": "d",
    "plots": {"figures": []},
}


def record(**tags: str) -> Record:
    base = {"run_fingerprint": "r" * 64, "draws_fingerprint": "d" * 64}
    return Record("name", "cookies", dict(PARAMS), base | tags)


@pytest.fixture
def uri(outputs) -> str:
    return f"sqlite:///{outputs}/mlflow.db"


def among(uri: str) -> list:
    return reuse.candidates("cookies", uri=uri)


def log(outputs, uri, what, write=lambda run: None, error=None) -> str:
    try:
        with tracking.logged_run(what, uri=uri, outputs=outputs) as run:
            write(run)
            if error:
                raise error
    except ValueError:
        pass
    return run.run_id


def test_a_finished_run_with_the_same_fingerprint_is_a_twin(outputs, uri):
    run_id = log(outputs, uri, record())
    assert reuse.finished(record(), INGREDIENTS, among(uri)).run_id == run_id


def test_a_failed_run_is_no_twin(outputs, uri):
    log(outputs, uri, record(), error=ValueError("no luck"))
    assert reuse.finished(record(), INGREDIENTS, among(uri)) is None


def test_a_run_with_another_fingerprint_is_no_twin(outputs, uri):
    log(outputs, uri, record(run_fingerprint="x" * 64))
    assert reuse.finished(record(), INGREDIENTS, among(uri)) is None


def with_figures(*figures: str, **changes) -> tuple[Record, dict]:
    """The record and the ingredients of a run with these figures."""
    deciding = INGREDIENTS | {"plots": {"figures": list(figures)}} | changes
    made = record(run_fingerprint=fingerprint(deciding))
    made.params["plots.figures"] = list(figures)
    return made, deciding


@pytest.mark.parametrize(
    ("theirs", "ours", "is_reused"),
    [
        (("rank", "ecdf", "forest"), ("ecdf", "rank"), True),
        (("rank",), (), True),
        (("rank", "ecdf"), ("ecdf", "rank"), True),
        (("rank",), ("rank", "ecdf"), False),
        (("rank", "ecdf"), ("forest",), False),
    ],
)
def test_a_run_with_these_figures_and_more_is_a_twin_and_one_with_fewer_is_not(outputs, uri, theirs, ours, is_reused):
    run_id = log(outputs, uri, with_figures(*theirs)[0])
    found = reuse.finished(*with_figures(*ours), among(uri))
    assert (found.run_id if found else None) == (run_id if is_reused else None)


def test_a_run_with_more_figures_that_differs_in_anything_else_is_no_twin(outputs, uri):
    log(outputs, uri, with_figures("rank", "ecdf", all_source="another")[0])
    assert reuse.finished(*with_figures("rank"), among(uri)) is None


def test_it_is_said_that_a_twin_has_more_figures(outputs, uri):
    log(outputs, uri, with_figures("rank", "ecdf")[0])
    (twin,) = among(uri)
    assert reuse.more_figures(twin, with_figures("rank")[0]) == "; it has these figures and more"
    assert reuse.more_figures(twin, with_figures("rank", "ecdf")[0]) == ""


def draws_of(digest: str):
    def write(run) -> None:
        posterior = xr.Dataset({"lam": (("chain", "draw"), [[1.0, 2.0]])})
        stats = xr.Dataset({"energy": (("chain", "draw"), [[0.5, 0.25]])})
        (run.artifacts / "posterior").mkdir(parents=True)
        xr.DataTree.from_dict({"posterior": posterior, "sample_stats": stats}).to_netcdf(
            run.artifacts / "posterior" / "posterior.nc", engine="netcdf4"
        )
        good = posterior_digests({"lam": posterior["lam"].values})["all"]
        run.record.tags["posterior_sha256"] = good if digest == "good" else "0" * 64

    return write


def test_draws_are_taken_from_a_run_with_the_same_draws_fingerprint(outputs, uri):
    run_id = log(outputs, uri, record(run_fingerprint="x" * 64), draws_of("good"))
    stored = reuse.same_draws(record(), among(uri), uri=uri)
    assert stored.run_id == run_id
    assert stored.draws.posterior["lam"].tolist() == [[1.0, 2.0]]


def test_draws_that_are_not_what_their_run_says_are_not_taken(outputs, uri):
    log(outputs, uri, record(), draws_of("bad"))
    assert reuse.same_draws(record(), among(uri), uri=uri) is None


def test_a_run_without_its_draws_gives_none(outputs, uri):
    log(outputs, uri, record())
    assert reuse.same_draws(record(), among(uri), uri=uri) is None


@pytest.mark.parametrize(
    ("then", "said"),
    [
        ({"numpyro": "0.22.0"}, "fitted with numpyro 0.22.0, here 0.23.0"),
        ({"data_sha256": "e"}, "fitted to other data"),
        (
            {"source": {"fit.py": "a"}, "all_source": "a"},
            "another version of the source, made with another version of fit.py",
        ),
        ({}, ""),
    ],
)
def test_a_near_miss_names_what_differs(outputs, uri, then, said):

    log(outputs, uri, record(), lambda run: run.write("environment/fingerprint.json", json.dumps(INGREDIENTS | then)))
    found = reuse.near_miss(record(), INGREDIENTS, among(uri), uri=uri)
    assert said in found if said else found == ""


def test_a_run_with_other_settings_is_no_near_miss(outputs, uri):
    other = record()
    other.params["seed"] = 1
    log(outputs, uri, other, lambda run: run.write("environment/fingerprint.json", '{"numpyro": "0.22.0"}'))
    assert reuse.near_miss(record(), INGREDIENTS, among(uri), uri=uri) == ""


def test_how_often_a_run_was_saved_does_not_matter_to_a_near_miss(outputs, uri):
    other = record()
    other.params["sampler.checkpoint_every"] = 7
    log(outputs, uri, other, lambda run: run.write("environment/fingerprint.json", '{"numpyro": "0.22.0"}'))
    assert "numpyro 0.22.0" in reuse.near_miss(record(), {"numpyro": "0.23.0"}, among(uri), uri=uri)


def test_a_run_of_0_1_0_differs_in_its_source_and_not_in_what_its_settings_were_called():
    now = INGREDIENTS | {"sampler": {"name": "nuts"}, "pooling": {"parameterisation": "marginal"}}
    then = INGREDIENTS | {"sampler": {}, "pooling": {"rates": "integrated"}, "source": {"fit.py": "a"}}
    assert reuse.told(then, now) == "made with another version of fit.py"
    assert reuse.told({"jax": "1"}, {"jax": "2"}) == "fitted with jax 1, here 2"  # the stack has no settings
