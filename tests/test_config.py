"""Composed configs to checked settings: every choice there is, every refusal, and what is dropped or filled in."""

import copy
import dataclasses
import functools
import itertools
import re
import traceback
import typing
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from pydantic import ValidationError

from poolwise import config, paths
from poolwise.config import Config, check, hydra_fault, upgraded
from poolwise.errors import ConfigError, RequestError
from poolwise.figures.names import FAILED_CHECKS
from poolwise.figures.registry import FIGURES
from poolwise.inference.engines import ENGINES
from poolwise.model.count_model import SITES, sites_of
from poolwise.model.likelihoods import LIKELIHOODS
from poolwise.model.likelihoods.base import Likelihood
from poolwise.model.poolings import POOLINGS
from poolwise.paths import CONF, ROOT, outputs, register_resolvers, resolve_path
from support import PRIORS

GROUPS = {
    *("data", "pooling", "likelihood", "prior", "sampler"),
    *("device", "checks", "predict", "plots", "tracking", "sweep"),
}
EXPERIMENTS = [path.stem for path in sorted((ROOT / "experiments").glob("*.yaml"))]
CHOICES = [(path.parent.name, path.stem) for path in sorted(CONF.glob("*/*.yaml")) if path.parent.name != "hydra"]
SITE_CHOICES = [(path.parent.name, path.stem) for path in sorted(CONF.glob("prior/*/*.yaml"))]
TABLE = {"path": "defects.csv", "group": "plant", "count": "defects"}  # what data=table leaves open
SECRET = "hunter2"
GONE = object()


@pytest.fixture(scope="module", autouse=True)
def resolvers() -> None:
    register_resolvers()


def composed(*overrides: str, **options) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(overrides), **options)


def checked(*overrides: str) -> Config:
    return check(composed(*overrides))


@functools.cache
def default() -> dict:
    return OmegaConf.to_container(composed())


def altered(changes: dict) -> Config:
    """The default with these dotted keys set, or taken away, checked: composing takes two hundred times as long."""
    raw = copy.deepcopy(default())
    for dotted, value in changes.items():
        *parents, key = dotted.split(".")
        section = functools.reduce(lambda below, each: below.setdefault(each, {}), parents, raw)
        if value is GONE:
            del section[key]
        else:
            section[key] = value
    return check(raw)


def written(path: str) -> dict:
    """A config file as it is written."""
    return yaml.safe_load((CONF / path).read_text(encoding="utf-8"))


def just(sentence: str) -> str:
    """A pattern for a message of this one sentence."""
    return f"^{re.escape(sentence)}$"


# What composes.


def test_the_default_is_the_notebooks_hierarchical_poisson_fit_of_the_cookies():
    # DESIGN: NUTS, 4 chains, 2000 warm-up, 4000 draws, target 0.9, looks every 1000 steps, seed 0, float64
    assert checked().resolved() == {
        "data": {
            "name": "cookies",
            "path": "data/cookies.csv",
            "group": "location",
            "count": "chips",
            "exposure": None,
            "per": 1.0,
            "multiplicity": None,
        },
        "pooling": {"name": "hierarchical", "population": "gamma", "parameterisation": "auto"},
        "likelihood": {"name": "poisson"},
        "prior": {site: PRIORS[site] for site in ("mu", "sigma")},
        "sampler": {
            "num_warmup": 2000,
            "num_samples": 4000,
            "num_chains": 4,
            "target_accept": 0.9,
            "max_tree_depth": 10,
            "checkpoint_every": 1000,
            "name": "nuts",
        },
        "device": {"platform": "cpu", "num_devices": None, "chain_method": "map", "x64": True},
        "checks": {
            "progress": 10,
            "groups": True,
            "rate_ratios": True,
            "exact": True,
            "sensitivity": True,
            "exposure_law": True,
            "model_check": True,
            "zeros": True,
            "leave_group_out": False,
        },
        "predict": {
            **{"num_draws": 1000, "new_group": True, "new_groups": 1, "group": None, "exposure": None, "above": []},
        },
        "plots": {"figures": written("plots/standard.yaml")["figures"]},
        "tracking": {"uri": None, "table_limit_mb": 10.0},
        "sweep": {"dry_run": False, "compare": True},
        "seed": 0,
        "reuse": None,
    }


def test_the_notebook_priors_are_those_of_the_tests():
    assert OmegaConf.to_container(composed().prior) == PRIORS


def test_every_config_group_of_the_contract_has_a_choice():
    assert {group for group, _ in CHOICES} == GROUPS


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_composes_to_what_is_written_in_it(group, choice):
    override = f"{group}={choice}"
    table = [f"data.{key}={value}" for key, value in TABLE.items()] if override == "data=table" else []
    found = checked(override, *table).resolved()[group]
    plain = {key: value for key, value in written(f"{group}/{choice}.yaml").items() if key != "defaults"}
    plain |= TABLE | {"name": "defects"} if table else {}
    plain = {
        key: value
        for key, value in plain.items()
        if key not in ("parameterisation", "population", "overdispersion", "covariates", "reference", "at") or value
    }  # what offers no choice drops the key
    assert {key: found[key] for key in plain} == plain


@pytest.mark.parametrize(("site", "choice"), SITE_CHOICES)
def test_every_prior_of_a_site_composes_to_what_is_written_in_it(site, choice):
    variants = itertools.product(POOLINGS, LIKELIHOODS)
    pooling, likelihood = next(each for each in variants if site in sites_of(*each, has_covariates=True))
    covariates = ["data.covariates=[oven]"] if site == "beta" else []
    config = checked(f"pooling={pooling}", f"likelihood={likelihood}", f"prior/{site}={choice}", *covariates)
    assert config.prior[site] == written(f"prior/{site}/{choice}.yaml")


@pytest.mark.parametrize("name", [choice for group, choice in CHOICES if group == "prior"])
def test_every_prior_set_holds_the_named_choice_for_every_site(name):
    chosen = {site: choice for each in written(f"prior/{name}.yaml")["defaults"] for site, choice in each.items()}
    expected = {site: written(f"prior/{site}/{chosen[site]}.yaml") for site in SITES}
    assert OmegaConf.to_container(composed(f"prior={name}").prior) == expected


def test_the_choices_of_pooling_and_likelihood_are_those_of_the_model():
    named = {
        group: {written(f"{group}/{choice}.yaml").get("name") for each, choice in CHOICES if each == group}
        for group in ("pooling", "likelihood")
    }
    assert named == {"pooling": set(POOLINGS), "likelihood": set(LIKELIHOODS)}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_choice_in_an_experiments_grid_composes_and_checks(name):
    grid = composed(f"experiments={name}", return_hydra_config=True).hydra.sweeper.params
    assert grid
    for key, written_values in grid.items():
        asked = OverridesParser.create().parse_override(f"{key}={written_values}")
        if asked.is_interval_sweep():
            interval = asked.value()
            values = [interval.start, interval.end]
        else:
            values = list(asked.sweep_string_iterator()) if asked.is_sweep_override() else [written_values]
        for value in values if (CONF / key).is_dir() else {values[0], values[-1]}:  # of a range its ends
            checked(f"experiments={name}", f"{key}={value}")


def test_quick_sampling_keeps_what_it_does_not_shorten():
    quick, notebook = checked("sampler=quick").sampler, altered({}).sampler
    assert quick == dataclasses.replace(
        notebook, num_warmup=500, num_samples=1000, checkpoint_every=500
    )  # DESIGN: 500 + 1000


def test_hydras_own_folder_is_the_folder_of_outputs(monkeypatch, tmp_path):
    monkeypatch.setenv("POOLWISE_OUTPUTS", str(tmp_path))
    assert composed(return_hydra_config=True).hydra.run.dir == str(tmp_path)


# What is refused: keys, ranges, types.


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        ("sampler.num_sample", "unknown key sampler.num_sample. Did you mean sampler.num_samples?"),
        ("tracking.url", "unknown key tracking.url. Did you mean tracking.uri?"),
        ("sead", "unknown key sead. Did you mean seed?"),
        (
            "pooling.shrink",
            "unknown key pooling.shrink. Known keys: pooling.name, pooling.population, pooling.parameterisation.",
        ),  # nothing near: what there is
        (
            "checks.loo.folds",
            "unknown key checks.loo. Known keys: checks.progress, checks.groups, checks.rate_ratios, checks.exact, "
            "checks.sensitivity, checks.exposure_law, checks.model_check, checks.zeros, checks.leave_group_out.",
        ),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_one(key, sentence):
    with pytest.raises(ConfigError, match=just(sentence)):
        altered({key: 3})


def test_a_setting_of_another_choice_is_refused_as_such():
    error = Exception("Could not override 'sampler.target_accept'.\nKey 'target_accept' is not in struct")
    assert str(hydra_fault(error)) == (
        "sampler.target_accept is not a setting of the chosen sampler. "
        "Leave it out, or choose another sampler=<choice>."
    )


def test_an_engine_without_a_setting_that_it_needs_is_refused():
    with pytest.raises(ConfigError, match=just("sampler.num_warmup is missing. Give it: sampler.num_warmup=<value>.")):
        checked(
            "sampler=exact",
            "sampler.name=nuts",
            "+sampler.target_accept=0.9",
            "+sampler.max_tree_depth=10",
            "+sampler.checkpoint_every=100",
        )


def test_an_unknown_key_that_hydra_was_told_to_add_is_refused():
    with pytest.raises(ConfigError, match=just("unknown key sampler.num_sample. Did you mean sampler.num_samples?")):
        checked("+sampler.num_sample=3")


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("sampler.num_warmup", 0, "greater than 0"),
        ("sampler.num_samples", 3, "greater than or equal to 4"),  # R-hat: two draws in each half of a chain
        ("sampler.num_chains", 0, "greater than or equal to 1"),
        ("sampler.target_accept", 0.0, "greater than 0"),
        ("sampler.target_accept", 1.0, "less than 1"),
        ("sampler.target_accept", float("nan"), "less than 1"),
        ("sampler.max_tree_depth", 0, "greater than 0"),
        ("sampler.max_tree_depth", 21, "less than or equal to 20"),
        ("sampler.checkpoint_every", 0, "greater than 0"),
        ("device.num_devices", 0, "greater than or equal to 1"),
        ("checks.progress", -1, "greater than or equal to 0"),
        ("predict.num_draws", 0, "greater than or equal to 1"),
        ("predict.new_groups", 0, "greater than or equal to 1"),
        ("predict.exposure", 0.0, "greater than 0"),
        ("predict.exposure", float("inf"), "a finite number"),
        ("predict.exposure", float("nan"), "a finite number"),
        ("tracking.table_limit_mb", -1.0, "greater than or equal to 0"),
        ("seed", -1, "greater than or equal to 0"),
        ("seed", 2**32, "less than 4294967296"),
    ],
)
def test_a_number_out_of_range_is_refused(key, value, rule):
    with pytest.raises(ConfigError, match=just(f"{key} is {value}; it must be {rule}.")):
        altered({key: value})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 2**32 - 1),
        ("sampler.num_warmup", 1),
        ("sampler.num_samples", 4),
        ("sampler.num_chains", 1),
        ("sampler.max_tree_depth", 1),
        ("sampler.max_tree_depth", 20),
        ("sampler.checkpoint_every", 1),
        ("device.num_devices", 1),
        ("checks.progress", 0),
        ("predict.num_draws", 1),
        ("tracking.table_limit_mb", 0.0),
    ],
)
def test_the_last_number_in_range_is_kept(key, value):
    assert altered({key: value}).leaves()[key] == value


@pytest.mark.parametrize(
    ("key", "value", "kind"),
    [
        ("sampler.num_chains", "4", "integer"),
        ("sampler.num_samples", 4000.0, "integer"),
        ("seed", True, "integer"),
        ("seed", None, "integer"),
        ("seed", "", "integer"),
        ("sampler.target_accept", "0.9", "number"),
        ("sampler.target_accept", True, "number"),
        ("device.x64", 1, "boolean"),
        ("checks.exact", 1, "boolean"),
        ("checks.sensitivity", None, "boolean"),
        ("checks.leave_group_out", "yes", "boolean"),
        ("predict.new_group", "yes", "boolean"),
        ("predict.group", 2.5, "string. In a file, put the text in quotes"),
        ("predict.group", True, "string. In a file, put the text in quotes"),
        ("data.group", 7.0, "string. In a file, put the text in quotes"),
        ("tracking.uri", 7, "string. In a file, put the text in quotes"),
        ("reuse", "yes", "boolean"),
        ("sweep.dry_run", 1, "boolean"),
        ("device.platform", "tpu", "'cpu' or 'gpu'"),
        ("device.chain_method", "pmap", "'map' or 'vmap'"),
        ("pooling.name", "partial", "'pooled', 'unpooled' or 'hierarchical'"),
        ("likelihood.name", "normal", " or ".join(", ".join(map(repr, LIKELIHOODS)).rsplit(", ", 1))),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_and_not_converted(key, value, kind):
    with pytest.raises(ConfigError, match=just(f"{key} is {value!r}; it must be {kind}.")):
        altered({key: value})


def test_a_quoted_number_on_the_command_line_is_text():
    with pytest.raises(ConfigError, match=just("sampler.num_chains is '4'; it must be integer.")):
        checked("sampler.num_chains='4'")


def test_an_unknown_figure_is_refused():
    with pytest.raises(ConfigError, match=r"^plots\.figures\.1 is 'pie'; it must be 'counts', 'groups', 'model'"):
        altered({"plots.figures": ["rank", "pie"]})


def test_the_figures_of_the_config_are_those_that_can_be_drawn():
    assert set(typing.get_args(config.FigureName)) == {*FIGURES, FAILED_CHECKS}


def test_an_engine_that_is_not_registered_is_refused_with_those_that_are():
    with pytest.raises(ConfigError) as caught:
        checked("sampler.name=hmc", "seed=-1")
    refusal, _ = str(caught.value).splitlines()  # with every other fault
    assert refusal.startswith("sampler.name is 'hmc'; it must be ")
    assert re.findall(r"'(\w+)'", refusal.partition(";")[2]) == list(ENGINES)
    assert altered({"sampler.name": "nuts"}) == altered({})


def test_full_draws_every_figure_once_and_the_default_adds_those_of_failed_checks():
    full, standard, core = (written(f"plots/{name}.yaml")["figures"] for name in ("full", "standard", "core"))
    assert sorted(full) == sorted(FIGURES)
    assert set(core) < set(full)
    assert set(standard) - set(full) == {FAILED_CHECKS}


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [
        ([12, -1], "predict.above.1 is -1; it must be greater than or equal to 0."),
        ([2**53], f"predict.above.0 is {2**53}; it must be less than {2**53}."),  # the largest count of a table
        ([12.5], "predict.above.0 is 12.5; it must be integer."),
        (["12"], "predict.above.0 is '12'; it must be integer."),
    ],
)
def test_what_a_count_is_to_be_above_is_a_count(counts, sentence):
    with pytest.raises(ConfigError, match=just(sentence)):
        altered({"predict.above": counts})


def test_counts_to_be_above_are_kept_in_their_order():
    assert checked("predict.above=[15,0,12]").predict.above == (15, 0, 12)


@pytest.mark.parametrize(
    ("override", "label"), [("predict.group=7", "7"), ("predict.group='007'", "007"), ("predict.group=north", "north")]
)
def test_the_label_of_a_group_is_text_though_it_look_like_a_number(override, label):
    assert checked(override).predict.group == label


def test_nothing_to_predict_is_refused_and_a_group_of_the_data_is_enough():
    refusal = "predict.new_group=false needs a group of the data to predict. Name it: predict.group=<label>."
    with pytest.raises(ConfigError, match=just(refusal)):
        checked("predict.new_group=false")
    assert checked("predict.new_group=false", "predict.group=3").predict.group == "3"


@pytest.mark.parametrize("pooling", ["pooled", "unpooled"])
def test_a_parameterisation_is_dropped_where_there_is_only_one(pooling):
    # a sweep over poolings may set it for all; it reaches neither fingerprints nor parameters
    config = checked(f"pooling={pooling}", "pooling.parameterisation=marginal")
    assert config == checked(f"pooling={pooling}")
    assert "pooling.parameterisation" not in config.leaves()
    assert config.model.parameterisation == "centred"


@pytest.mark.parametrize("parameterisation", ["centred", "standardised", "marginal"])
def test_a_hierarchy_has_the_parameterisation_that_is_asked_for(parameterisation):
    assert checked(f"pooling.parameterisation={parameterisation}").model.parameterisation == parameterisation


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (None, "pooling.parameterisation must be given:"),
        ("sampled", "pooling.parameterisation is 'sampled'; it must be"),
    ],
)
def test_a_parameterisation_that_a_hierarchy_does_not_have_is_refused_with_those_that_it_has(asked, told):
    with pytest.raises(ConfigError, match=just(f"{told} 'auto', 'standardised', 'centred' or 'marginal'.")):
        altered({"pooling.parameterisation": asked})


@pytest.mark.parametrize(
    ("likelihood", "num_groups", "chosen"),
    [
        *(("poisson", 5, "standardised"), ("poisson", 199, "standardised"), ("poisson", 200, "marginal")),
        *(("negative_binomial", 200, "marginal"), ("zero_inflated_poisson", 200, "standardised")),
        ("hurdle_negative_binomial", 200, "standardised"),
    ],
)
def test_auto_is_marginal_for_many_groups_if_the_likelihood_allows_it(likelihood, num_groups, chosen):
    config = checked(f"likelihood={likelihood}").for_groups(num_groups)
    assert config.pooling.parameterisation == config.model.parameterisation == chosen


def test_a_parameterisation_that_was_asked_for_stays():
    config = checked("pooling.parameterisation=centred")
    assert config.for_groups(10_000) is config


class WithoutMarginal(Likelihood):
    """A likelihood whose rates cannot be integrated out."""

    name, short = "without_marginal", "none"

    def distribution(self, rate, params):
        raise NotImplementedError


@pytest.fixture
def without_marginal(monkeypatch) -> list[str]:
    """The likelihoods without a marginal form, and one that is registered for the test."""
    monkeypatch.setitem(LIKELIHOODS, "without_marginal", WithoutMarginal())
    return [name for name, likelihood in LIKELIHOODS.items() if not likelihood.has_marginal]


def test_the_marginal_form_is_refused_in_one_sentence_for_a_likelihood_without_it(without_marginal):
    for name in without_marginal:
        choice = LIKELIHOODS[name].overdispersion
        noise = f"{name} with overdispersion {choice}" if choice else name
        told = f"pooling.parameterisation is marginal, which {noise} does not support; choose standardised or centred."
        with pytest.raises(ConfigError, match=just(told)):
            altered({"likelihood.name": name, "pooling.parameterisation": "marginal"})
        for other in ("standardised", "centred"):
            found = altered({"likelihood.name": name, "pooling.parameterisation": other})
            assert found.pooling.parameterisation == other
        assert altered({"likelihood.name": name, "pooling": {"name": "pooled", "parameterisation": "marginal"}})


def test_the_key_of_an_earlier_version_is_answered_with_the_one_of_this():
    told = "unknown key pooling.rates. Did you mean pooling.parameterisation?"
    with pytest.raises(HydraException) as caught:
        checked("pooling.rates=sampled")
    assert str(hydra_fault(caught.value)) == told
    with pytest.raises(ConfigError, match=just(told)):
        altered({"pooling": {"name": "hierarchical", "rates": "sampled"}})


def test_leaves_of_an_earlier_version_get_the_names_of_this_one():
    later = dict.fromkeys(("checks.rate_ratios", "checks.exposure_law", "checks.zeros"), False)
    engine = {"sampler.name": "nuts", "data.per": 1.0, "data.multiplicity": None, **later}  # of every earlier version
    assert upgraded({"pooling.rates": "sampled", "seed": 0}) == engine | {
        "pooling.parameterisation": "centred",
        "seed": 0,
    }
    assert upgraded({"pooling.rates": "integrated"}) == engine | {"pooling.parameterisation": "marginal"}
    assert upgraded({"pooling.parameterisation": "marginal"}) == engine | {"pooling.parameterisation": "marginal"}
    assert upgraded({"pooling.name": "pooled"}) == engine | {"pooling.name": "pooled"}
    gammas = {"pooling.name": "hierarchical", "pooling.population": "gamma"}
    assert upgraded({"pooling.name": "hierarchical"}) == engine | gammas
    by_row = {"likelihood.name": "negative_binomial", "likelihood.overdispersion": "row"}
    assert upgraded({"likelihood.name": "negative_binomial"}) == engine | by_row
    assert upgraded({"sampler.name": "other"}) == engine | {"sampler.name": "other"}
    now = checked().leaves()
    assert upgraded(now) == now


@pytest.mark.parametrize("key", ["seed", "sampler", "sampler.num_warmup", "data.group", "tracking.uri"])
def test_a_key_taken_away_is_missed(key):
    with pytest.raises(ConfigError, match=just(f"{key} is missing. Give it: {key}=<value>.")):
        altered({key: GONE})


def test_all_faults_are_reported_at_once():
    with pytest.raises(ConfigError) as caught:
        altered({"seed": -1, "sampler.num_chains": 0, "prior.mu.rate": -1, "prior.tau": {}, "device.cores": 2})
    keys = [line.removeprefix("unknown key ").split(" ")[0] for line in str(caught.value).splitlines()]
    assert sorted(key.rstrip(".") for key in keys) == [
        "device.cores",
        "prior.mu.rate",
        "prior.tau",
        "sampler.num_chains",
        "seed",
    ]


def test_an_interpolation_that_leads_nowhere_is_refused():
    with pytest.raises(ConfigError, match=r"Interpolation key 'sede' not found"):
        altered({"sampler.num_chains": "${sede}"})


def test_a_config_error_is_a_wrong_request():
    assert issubclass(ConfigError, RequestError)
    assert ConfigError.exit_code == 2


def test_seed_zero_is_a_seed_like_any_other():
    assert repr(checked("seed=0").seed) == "0"


def test_whole_numbers_are_taken_where_a_float_is_meant():
    assert repr(altered({"predict.exposure": 2}).predict.exposure) == "2.0"


# What is refused: the table.


def test_a_key_left_open_is_asked_for():
    with pytest.raises(ConfigError, match=just("data.group must be given: data.group=<value>.")):
        altered({"data.group": "???"})


def test_a_table_without_its_columns_is_refused_naming_every_missing_key():
    with pytest.raises(ConfigError) as caught:
        checked("data=table")
    assert str(caught.value).splitlines() == [
        f"data.{key} must be given: data.{key}=<value>." for key in ("path", "group", "count")
    ]


@pytest.mark.parametrize(("path", "name"), [("a/defects.csv", "defects"), ("defects.csv.gz", "defects"), ("x", "x")])
def test_a_table_is_called_by_its_files_name_without_the_ending(path, name):
    assert altered({"data.name": None, "data.path": path}).data.name == name


def test_a_name_given_to_a_table_is_kept():
    assert altered({"data.name": "defects", "data.path": "a.csv"}).data.name == "defects"


# What is refused: priors.


@pytest.mark.parametrize(
    ("pooling", "likelihood", "sites"),
    [
        ("pooled", "poisson", ("lam",)),
        ("unpooled", "negative_binomial", ("lam", "delta")),
        ("hierarchical", "poisson", ("mu", "sigma")),
        ("hierarchical", "negative_binomial", ("mu", "sigma", "delta")),
    ],
)
def test_sites_that_the_variant_does_not_use_are_dropped(pooling, likelihood, sites):
    config = altered({"pooling.name": pooling, "likelihood.name": likelihood})
    assert config.sites == sites
    assert {key.split(".")[1] for key in config.leaves() if key.startswith("prior.")} == set(sites)


@pytest.mark.parametrize(
    ("key", "value"), [("prior.delta.scale", -1), ("prior.delta.scale", "???"), ("prior.lam.name", "Normal")]
)
def test_a_fault_in_a_prior_that_is_not_used_is_none(key, value):
    assert altered({key: value}) == altered({})


def test_a_site_that_no_variant_knows_is_refused():
    sentence = f"prior.tau is not a site of any model. Remove it; sites are {', '.join(SITES)}."
    with pytest.raises(ConfigError, match=just(sentence)):
        altered({"prior.tau.name": "Gamma"})


@pytest.mark.parametrize("value", [GONE, None])
def test_a_site_without_a_prior_is_refused_with_the_remedy(value):
    sentence = "prior.sigma is missing; this model needs it. Choose one: prior/sigma=<choice>."
    with pytest.raises(ConfigError, match=just(sentence)):
        altered({"prior.sigma": value})


def test_no_priors_at_all_are_refused():
    with pytest.raises(ConfigError, match=just("prior must have one choice per site, e.g. prior=notebook.")):
        altered({"prior": GONE})


@pytest.mark.parametrize("family", ["Normal", "numpyro.distributions.Gamma", "gamma", None, ["Gamma"]])
def test_a_family_that_is_not_registered_is_refused(family):
    with pytest.raises(
        ConfigError, match=r"^prior\.mu\.name is .*; mu is positive and accepts one of Exponential, Gamma"
    ):
        altered({"prior.mu.name": family})


def test_an_impossible_prior_value_is_refused():
    with pytest.raises(ConfigError, match=just("prior.sigma.rate is 0; it must be > 0.")):
        altered({"prior.sigma.rate": 0})


def test_a_key_left_over_from_another_family_is_refused():
    with pytest.raises(ConfigError) as caught:
        altered({"prior.sigma.name": "HalfNormal"})  # conf/prior/sigma/exponential.yaml has a rate
    assert str(caught.value).splitlines() == [
        "prior.sigma.rate is not a parameter of HalfNormal (it has scale).",
        "prior.sigma.scale is missing; HalfNormal needs it.",
    ]


def test_one_sites_prior_is_replaced_by_itself():
    config = checked("prior/sigma=half_normal", "prior.sigma.scale=2")
    assert config.prior == {"mu": PRIORS["mu"], "sigma": {"name": "HalfNormal", "scale": 2.0}}


def test_whole_numbers_in_priors_become_floats():
    found = altered({"prior.mu": {"name": "Gamma", "concentration": 2, "rate": 1}}).prior["mu"]
    assert repr(found) == "{'name': 'Gamma', 'concentration': 2.0, 'rate': 1.0}"


# Credentials.


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        (f"https://ada:{SECRET}@mlflow.example.org/x", "https://mlflow.example.org/x"),
        (f"postgresql://ada:{SECRET}@db:5432/runs", "postgresql://db:5432/runs"),
        (f"https://{SECRET}@mlflow.example.org", "https://mlflow.example.org"),  # a token for a user name
        (f"postgresql://host/db?user=u&password={SECRET}", "postgresql://host/db"),
        (f"mysql://host/db?PassWd={SECRET}&charset=utf8", "mysql://host/db?charset=utf8"),
        (f"mssql+pyodbc:///?odbc_connect=DSN%3Dx%3BPWD%3D{SECRET}", "mssql+pyodbc:///"),
    ],
)
def test_credentials_in_the_config_are_refused_and_not_repeated(uri, shown):
    with pytest.raises(ConfigError, match=r"^tracking\.uri contains a user name or password") as caught:
        altered({"tracking.uri": uri})
    assert f"Put the whole address into MLFLOW_TRACKING_URI and write tracking.uri={shown}." in str(caught.value)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_credentials_are_not_repeated_where_the_address_is_of_the_wrong_kind():
    with pytest.raises(ConfigError, match=r"^tracking\.uri is ") as caught:
        altered({"tracking.uri": [f"https://ada:{SECRET}@mlflow.example.org"]})
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("uri", ["sqlite:///runs/a@b.db", "https://mlflow.example.org/team@home", "file:runs"])
def test_an_address_without_credentials_is_kept(uri):
    assert altered({"tracking.uri": uri}).tracking.uri == uri


# What comes out.


@pytest.mark.parametrize(("part", "key", "value"), [("", "seed", 1), ("sampler", "num_warmup", 1), ("", "new", 1)])
def test_a_checked_config_cannot_be_changed(part, key, value):
    config = altered({})
    with pytest.raises((ValidationError, dataclasses.FrozenInstanceError), match=r"frozen|no field|cannot assign"):
        setattr(getattr(config, part) if part else config, key, value)


def test_checking_changes_nothing_in_what_it_is_given():
    given = composed("data=table", *(f"data.{key}={value}" for key, value in TABLE.items()), "prior.sigma.rate=1")
    before = OmegaConf.to_yaml(given)
    check(given)
    assert OmegaConf.to_yaml(given) == before


def test_a_resolved_config_written_as_yaml_checks_to_the_same_settings():
    config = altered({"likelihood.name": "negative_binomial", "prior.mu.rate": 1, "device.num_devices": 2, "seed": 7})
    assert check(yaml.safe_load(yaml.safe_dump(config.resolved()))) == config


def test_leaves_are_dotted_keys_with_plain_values():
    leaves = altered({"prior.mu.rate": 0.5}).leaves()
    assert [leaves[key] for key in ("pooling.name", "prior.mu.rate", "data.exposure", "plots.figures")] == [
        *("hierarchical", 0.5, None),
        written("plots/standard.yaml")["figures"],
    ]


def test_leaves_hold_every_value_of_the_config():
    leaves = altered({}).leaves()
    # 7 data, 4 model, 5 prior, 7 sampler, 4 device, 9 checks, 6 predict, 1 plots, 2 tracking, 2 sweep, seed, reuse
    assert len(leaves) == 49
    assert not any(isinstance(value, dict) for value in leaves.values())


def test_families_name_the_distribution_of_each_site():
    assert altered({}).families == (("mu", "Gamma"), ("sigma", "Exponential"))


def test_on_devices_sets_the_number_of_devices_and_nothing_else():
    config = altered({})
    before, after = config.leaves(), config.on_devices(2).leaves()
    assert {key: after[key] for key in after if after[key] != before[key]} == {"device.num_devices": 2}
    assert config.device.num_devices is None


def test_predicting_at_fills_in_an_exposure_that_is_not_given():
    before, after = altered({}).leaves(), altered({}).predicting_at(1240.0).leaves()
    assert {key: after[key] for key in after if after[key] != before[key]} == {"predict.exposure": 1240.0}
    assert altered({"predict.exposure": 2.0}).predicting_at(1240.0).predict.exposure == 2.0


def test_several_new_groups_are_not_a_group_of_the_data():
    with pytest.raises(
        ConfigError, match=r"predict.new_groups=10 is not about a group of the data. Leave out predict.g"
    ):
        checked("predict.new_groups=10", "predict.group=3")


# What Hydra refuses, in this project's words.


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("sampler.num_sample=3", "unknown key sampler.num_sample. Did you mean sampler.num_samples?"),
        ("smpler.num_samples=3", "unknown key smpler.num_samples. Did you mean sampler.num_samples?"),
        ("pooling=partial", "unknown choice pooling=partial. Choices: hierarchical, pooled, unpooled."),
        ("~thinning", f"unknown key thinning. Known keys: {', '.join(Config.model_fields)}."),
        ("seed", "Error parsing override 'seed'"),
        ("seed=[1", "no viable alternative at input '[1'"),
    ],
)
def test_hydras_refusals_become_one_sentence(override, sentence):
    with pytest.raises(HydraException) as caught:
        composed(override)
    fault = hydra_fault(caught.value)
    assert isinstance(fault, ConfigError)
    assert str(fault) == sentence


@pytest.mark.parametrize(("group", "choices"), [("prior", CHOICES), ("prior/sigma", SITE_CHOICES)])
def test_an_unknown_choice_is_refused_with_all_that_there_are(group, choices):
    with pytest.raises(HydraException) as caught:
        composed(f"{group}=flat")
    there_are = ", ".join(choice for each, choice in choices if each == group.rpartition("/")[2])
    assert str(hydra_fault(caught.value)) == f"unknown choice {group}=flat. Choices: {there_are}."


# Places.


def test_a_relative_path_prefers_the_working_directory(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cookies.csv").touch()
    assert resolve_path("data/cookies.csv").resolve() == (tmp_path / "data" / "cookies.csv").resolve()


def test_a_relative_path_falls_back_to_the_checkout(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert resolve_path("data/cookies.csv") == ROOT / "data" / "cookies.csv"


def test_a_path_that_leads_nowhere_is_left_as_it_is(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert resolve_path("none.csv") == Path("none.csv")


def test_an_absolute_path_is_left_as_it_is(tmp_path):
    assert resolve_path(str(tmp_path / "none.csv")) == tmp_path / "none.csv"


def test_a_path_in_the_home_folder_is_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert resolve_path("~/counts.csv") == tmp_path / "counts.csv"


def test_outputs_are_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POOLWISE_OUTPUTS", "elsewhere")
    assert outputs() == Path.cwd() / "elsewhere"


@pytest.mark.parametrize("is_set", [True, False])
def test_outputs_are_in_the_checkout_if_nothing_else_is_said(monkeypatch, tmp_path, is_set):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POOLWISE_OUTPUTS", "")
    if not is_set:
        monkeypatch.delenv("POOLWISE_OUTPUTS")
    assert outputs() == ROOT / "outputs"


def test_outputs_of_an_installed_package_are_in_the_working_directory(monkeypatch, tmp_path):
    monkeypatch.delenv("POOLWISE_OUTPUTS", raising=False)
    monkeypatch.setattr(paths, "ROOT", tmp_path / "site-packages" / "poolwise")  # no pyproject.toml there
    monkeypatch.chdir(tmp_path)
    assert outputs() == Path.cwd() / "outputs"


def test_a_unit_needs_exposures():
    with pytest.raises(ConfigError, match=r"^data\.per is 1000, but no exposures are named"):
        checked("data.per=1000")
