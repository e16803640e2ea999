"""Fingerprints that change with what decides a result and with nothing else."""

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from poolwise.config import check, leaves_of
from poolwise.inference.engines import ENGINES
from poolwise.model.likelihoods import LIKELIHOODS
from poolwise.model.poolings import POOLINGS
from poolwise.paths import CONF, register_resolvers
from poolwise.provenance import fingerprints
from poolwise.provenance.fingerprints import (
    SOURCE,
    decides_draws,
    draw_ingredients,
    draw_source,
    fingerprint,
    posterior_digests,
    run_ingredients,
    source_digest,
)

SHA256 = "0" * 64  # of the data
DRAWS_DECIDED_BY = {
    *("seed", "pooling.name", "pooling.population", "pooling.parameterisation", "likelihood.name"),
    *("prior.mu.name", "prior.mu.concentration", "prior.mu.rate", "prior.sigma.name", "prior.sigma.rate"),
    *(f"sampler.{key}" for key in ("name", "num_warmup", "num_samples", "num_chains", "target_accept")),
    *("sampler.max_tree_depth", "device.platform", "device.chain_method", "device.x64"),
}
RUN_DECIDED_BY = DRAWS_DECIDED_BY | {
    *(
        f"checks.{key}"
        for key in (
            "progress",
            "groups",
            "rate_ratios",
            "exact",
            "sensitivity",
            "exposure_law",
            "model_check",
            "zeros",
            "leave_group_out",
        )
    ),
    *(f"predict.{key}" for key in ("num_draws", "new_group", "new_groups", "group", "exposure", "above")),
    "plots.figures",
}


@pytest.fixture(scope="module")
def default() -> dict[str, Any]:
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return check(compose("config")).resolved()


@pytest.fixture
def settings(default: dict[str, Any]) -> dict[str, Any]:
    """The default config, resolved: hierarchical, Poisson."""
    return copy.deepcopy(default)


def changed(settings: dict[str, Any], dotted: str, value: Any = "another value") -> dict[str, Any]:
    """The settings with another value of one key."""
    other = copy.deepcopy(settings)
    *parents, key = dotted.split(".")
    section = other
    for parent in parents:
        section = section[parent]
    section[key] = value
    return other


def draws_fingerprint(settings: dict[str, Any], sha256: str = SHA256) -> str:
    return fingerprint(draw_ingredients(settings, sha256))


def run_fingerprint(settings: dict[str, Any], sha256: str = SHA256) -> str:
    return fingerprint(run_ingredients(settings, sha256))


# Settings and data.


@pytest.fixture
def renamed_plug_ins(monkeypatch) -> None:
    """The plug-ins of the default config under another name or choice too, so that a name alone can change."""
    monkeypatch.setitem(ENGINES, "another value", ENGINES["nuts"])
    monkeypatch.setattr(fingerprints, "pooling_of", lambda *_: POOLINGS["hierarchical"])
    monkeypatch.setattr(fingerprints, "likelihood_of", lambda *_: LIKELIHOODS["poisson"])


@pytest.mark.usefixtures("renamed_plug_ins")
@pytest.mark.parametrize(
    ("of", "decided_by"), [(draws_fingerprint, DRAWS_DECIDED_BY), (run_fingerprint, RUN_DECIDED_BY)]
)
def test_a_fingerprint_changes_with_the_settings_that_decide_it_alone(settings, of, decided_by):
    # not checkpoint_every nor num_devices, nor the table's name and place, whose content has a hash
    before = of(settings)
    assert {key for key, _ in leaves_of(settings) if of(changed(settings, key)) != before} == decided_by


@pytest.mark.parametrize("of", [draws_fingerprint, run_fingerprint])
def test_fingerprints_change_with_the_data(settings, of):
    assert of(settings, SHA256) != of(settings, "1" + SHA256[1:])


@pytest.mark.parametrize("of", [draws_fingerprint, run_fingerprint])
def test_fingerprints_do_not_depend_on_the_order_of_the_keys(settings, of):
    turned = {
        key: dict(reversed(value.items())) if isinstance(value, dict) else value
        for key, value in reversed(settings.items())
    }
    assert of(turned) == of(settings)


def test_fingerprints_see_the_smallest_change_of_a_prior_value(settings):
    other = changed(settings, "prior.mu.rate", float(np.nextafter(0.2, 1)))
    assert draws_fingerprint(other) != draws_fingerprint(settings)


def test_making_ingredients_changes_nothing_in_the_settings(settings):
    before = copy.deepcopy(settings)
    run_ingredients(settings, SHA256)
    assert settings == before


# The source.

Edit = Callable[[str], str]


@pytest.fixture
def edited(monkeypatch, tmp_path) -> Callable[[str, Edit], Path]:
    """`edited("model/special.py", edit)`: the package with one file edited is the one that runs, from here on."""

    def make(name: str, edit: Edit) -> Path:
        copied = tmp_path / str(len(list(tmp_path.iterdir()))) / "poolwise"
        shutil.copytree(SOURCE, copied, ignore=shutil.ignore_patterns("__pycache__"))
        before = (copied / name).read_text(encoding="utf-8")
        (copied / name).write_text(edit(before), encoding="utf-8")
        monkeypatch.setattr(fingerprints, "SOURCE", copied)
        return copied

    return make


@pytest.fixture
def moved(settings, edited) -> Callable[..., tuple[bool, bool]]:
    """`moved("model/special.py", edit, "likelihood.name", ...)`: whether an edit changes (draws, run) fingerprint."""

    def compare(name: str, edit: Edit, key: str = "seed", value: Any = 0) -> tuple[bool, bool]:
        asked = changed(settings, key, value)
        before = draws_fingerprint(asked), run_fingerprint(asked)
        edited(name, edit)
        return draws_fingerprint(asked) != before[0], run_fingerprint(asked) != before[1]

    return compare


def replaced(old: str, new: str) -> Edit:
    """An edit of what is there once."""

    def edit(text: str) -> str:
        assert text.count(old) == 1, f"{old!r} is there {text.count(old)} times"
        return text.replace(old, new)

    return edit


def added(lines: str) -> Edit:
    return lambda text: f"{text}{lines}\n"


MORE = added("MORE = 1")
OF_POISSON = [  # what decides the draws of a hierarchical Poisson fit
    *("counts/cells.py", "counts/parsing.py", "counts/reading.py", "counts/statistics.py", "counts/streaming.py"),
    *("counts/covariates.py", "model/effects.py"),
    *("model/count_model.py", "model/priors.py", "model/special.py", "model/sites.py"),
    *("model/poolings/base.py", "model/poolings/hierarchy.py", "model/poolings/hierarchical.py"),
    *("model/standardised_prior.py", "model/mixings/base.py", "model/mixings/gamma.py"),
    *("model/likelihoods/base.py", "model/likelihoods/poisson.py"),
    *("inference/engines/base.py", "inference/engines/nuts.py", "inference/settings.py", "inference/streams.py"),
    *("inference/snapshot.py", "inference/starts.py", "inference/checkpoint.py", "model/data_scale.py"),
    *("inference/blocks.py", "inference/rates.py"),
]
NOT_OF_POISSON = [
    *("model/likelihoods/negative_binomial.py", "model/marginal.py", "model/likelihoods/__init__.py"),
    *("model/poolings/pooled.py", "model/poolings/unpooled.py", "inference/engines/__init__.py"),
    *("model/poolings/hierarchical_log_normal.py", "model/marginal_log_normal.py", "model/mixings/log_normal.py"),
    *("model/likelihoods/zero_inflated.py", "model/likelihoods/hurdle.py", "model/mixings/__init__.py"),
    *("inference/predictive.py", "checks/gate.py", "figures/posterior.py", "report/templates/report.html"),
    *("provenance/fingerprints.py", "runs/pipeline.py", "config.py", "text.py"),
]


@pytest.mark.parametrize(
    ("name", "decides"), [*((name, True) for name in OF_POISSON), *((name, False) for name in NOT_OF_POISSON)]
)
def test_a_change_of_meaning_changes_the_draws_fingerprint_of_the_fits_that_use_the_file(moved, name, decides):
    assert moved(name, MORE) == (decides, True)


@pytest.mark.parametrize(
    ("key", "value", "name"),
    [
        ("likelihood", {"name": "negative_binomial"}, "model/likelihoods/negative_binomial.py"),
        ("likelihood", {"name": "negative_binomial"}, "model/marginal.py"),
        ("likelihood", {"name": "negative_binomial"}, "model/likelihoods/poisson.py"),  # its limit
        ("likelihood", {"name": "hurdle_negative_binomial"}, "model/likelihoods/hurdle.py"),
        ("likelihood", {"name": "hurdle_negative_binomial"}, "model/likelihoods/negative_binomial.py"),  # made of it
        ("pooling", {"name": "pooled"}, "model/poolings/pooled.py"),
        ("pooling", {"name": "unpooled"}, "model/poolings/unpooled.py"),
        ("pooling.population", "log_normal", "model/poolings/hierarchical_log_normal.py"),
        ("pooling.population", "log_normal", "model/marginal_log_normal.py"),
    ],
)
def test_another_plug_in_is_decided_by_its_own_file(moved, name, key, value):
    assert moved(name, MORE, key, value) == (True, True)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("model/poolings/hierarchical.py", '"alpha", mu**2 / sigma**2', '"alpha", mu**2 / sigma'),
        ("model/likelihoods/poisson.py", "gammaln(count + 1.0)", "gammaln(count + 1.5)"),
        ("model/poolings/hierarchy.py", 'sites = (\n        Site("mu", ', 'sites = (\n        Site("nu", '),
        (
            "model/poolings/hierarchy.py",
            '"mean rate of the population of groups")',
            '"mean rate of the population of groups", Support.UNIT)',
        ),
        ("inference/engines/nuts.py", "postprocess_fn(args, {})", "postprocess_fn(args, {1: 1})"),
    ],
)
def test_a_formula_in_code_is_no_word(moved, name, old, new):
    assert moved(name, replaced(old, new)) == (True, True)


@pytest.mark.parametrize(
    ("name", "edit"),
    [
        ("model/special.py", added("# a comment")),
        ("model/likelihoods/poisson.py", replaced("the variance is the mean.", "another docstring.")),
        ("model/likelihoods/poisson.py", replaced('"""y ~ Poisson(r)."""', '"""Another docstring."""')),
        ("model/likelihoods/poisson.py", replaced('"""Poisson(r)."""', '"""Another docstring."""')),
        ("model/likelihoods/poisson.py", replaced("variance equal to the mean", "another meaning")),
        ("model/likelihoods/poisson.py", replaced('"the count of row i"', '"another formula"')),
        ("model/likelihoods/poisson.py", replaced('"poisson", "pois"', '"poisson", "po"')),
        ("model/poolings/hierarchy.py", replaced("What would a new group be like?", "Another title?")),
        ("model/poolings/hierarchy.py", replaced("mean rate of the population of groups", "another meaning")),
        (
            "model/poolings/hierarchy.py",
            replaced(
                'Site("mu", "μ", "mean rate of the population of groups")', 'Site("mu", meaning="more", symbol="m")'
            ),
        ),
        ("model/poolings/base.py", replaced('whose_rate: str = "the rate of its group"', 'whose_rate: str = "more"')),
        (
            "model/poolings/hierarchical.py",
            replaced(
                'return RateLaw("Gamma", {}, {"mu": "mu", "shape": "alpha"})',
                'return RateLaw("Gamma", {},\n  {"mu": "mu", "shape": "alpha"})',
            ),
        ),
    ],
)
def test_comments_docstrings_words_and_layout_change_the_run_fingerprint_alone(moved, name, edit):
    assert moved(name, edit) == (False, True)


@pytest.mark.parametrize(
    ("likelihood", "name", "old", "new", "moves"),
    [
        ("zero_inflated_poisson", "zero_inflated", "any other count may be zero too", "more", False),
        ("zero_inflated_poisson", "zero_inflated", "the count of row i: 0 with", "more", False),
        ("hurdle_poisson", "hurdle", "share of rows without an event", "more", False),
        ("hurdle_poisson", "hurdle", "jnp.log1p(-params", "jnp.log(-params", True),
    ],
)
def test_words_of_a_likelihood_made_of_another_decide_nothing(moved, likelihood, name, old, new, moves):
    edit = replaced(old, new)
    assert moved(f"model/likelihoods/{name}.py", edit, "likelihood", {"name": likelihood}) == (moves, True)


def test_a_variable_that_is_called_like_a_word_decides_what_it_decides(settings, edited):
    found = set()
    for value in (1, 2):
        edited("model/special.py", added(f"def more():\n    short = {value}\n    return short"))
        found.add(draws_fingerprint(settings))
    assert len(found) == 2


def test_a_name_beside_the_words_decides_what_it_decides(settings, edited):
    found = set()
    for value in (1, 2):
        edited(
            "model/likelihoods/poisson.py",
            replaced('name, short = "poisson", "pois"', f'name, short, width = "poisson", "pois", {value}'),
        )
        found.add(draws_fingerprint(settings))
    assert len(found) == 2


def test_every_import_of_a_file_that_decides_draws_is_followed():
    # only `from poolwise... import ...` is
    for name in filter(decides_draws, fingerprints.source_files(SOURCE)):
        lines = (SOURCE / name).read_text(encoding="utf-8").splitlines()
        assert not [line for line in lines if line.strip().startswith(("import poolwise", "from ."))], name


def test_the_files_that_decide_the_draws_of_a_fit_are_those_of_its_plug_ins(settings):
    assert set(draw_source(settings)) == {*OF_POISSON, "errors.py"}
    assert {name for name in fingerprints.source_files(SOURCE) if decides_draws(name)} > set(draw_source(settings))


def test_the_source_digest_depends_neither_on_place_nor_on_what_python_compiled(edited):
    before = source_digest(SOURCE)
    copied = edited("errors.py", lambda text: text)
    (copied / "model.pyc").touch()
    assert source_digest(copied) == before


@pytest.mark.parametrize("library", ["jax", "jaxlib", "numpyro", "numpy"])
def test_fingerprints_change_with_the_version_of_a_library(settings, monkeypatch, library):
    before, version = draws_fingerprint(settings), fingerprints.importlib.metadata.version
    monkeypatch.setattr(
        fingerprints.importlib.metadata, "version", lambda name: "0" if name == library else version(name)
    )
    assert draws_fingerprint(settings) != before


def test_fingerprints_change_with_the_version_of_python(settings, monkeypatch):
    before = draws_fingerprint(settings)
    monkeypatch.setattr(fingerprints.platform, "python_version", lambda: "3.0")
    assert draws_fingerprint(settings) != before


# Digests of the draws.


@pytest.fixture
def posterior() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"mu": rng.random((2, 3)), "lam": rng.random((2, 3, 4))}


@pytest.mark.parametrize("name", ["mu", "lam"])
def test_a_changed_bit_changes_the_digest_of_its_parameter_and_of_all(posterior, name):
    before = posterior_digests(posterior)
    posterior[name].view(np.uint64)[1, 2] ^= 1
    after = posterior_digests(posterior)
    assert {each for each in before if after[each] != before[each]} == {name, "all"}


def test_the_same_draws_under_another_name_have_another_digest():
    draws = np.zeros((2, 3))
    assert posterior_digests({"mu": draws})["all"] != posterior_digests({"sigma": draws})["all"]


@pytest.mark.parametrize(
    "other",
    [np.zeros((3, 2)), np.zeros((2, 3), np.int64), np.zeros((2, 3), ">f8"), np.full((2, 3), -0.0)],
    ids=["shape", "type", "byte order", "sign of zero"],
)
def test_the_same_bytes_of_another_kind_have_another_digest(other):
    assert posterior_digests({"mu": other}) != posterior_digests({"mu": np.zeros((2, 3))})


def test_digests_do_not_depend_on_order_nor_layout(posterior):
    turned = {name: np.asfortranarray(draws) for name, draws in reversed(posterior.items())}
    assert posterior_digests(turned) == posterior_digests(posterior)
