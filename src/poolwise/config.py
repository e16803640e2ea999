"""A composed Hydra config to checked settings.

`check` runs before any data is read and reports all faults at once. Its result is frozen. It drops the priors that
the composed model does not use, so they enter neither the fingerprints nor the logged parameters.
"""

import difflib
import re
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)
from pydantic_core import PydanticCustomError

from poolwise.errors import ConfigError
from poolwise.figures import names as figures_names
from poolwise.inference.settings import Device, Positive, Sampler
from poolwise.tracking.credentials import public, scrub

if TYPE_CHECKING:
    from poolwise.model.count_model import Model


AUTO = "auto"  # the parameterisation that suits the number of groups
RENAMED = {"pooling.rates": "pooling.parameterisation"}  # keys in the records of earlier versions
RENAMED_CHOICES = {"pooling.rates": {"sampled": "centred", "integrated": "marginal"}}  # and their values
LATER = {
    "sampler.name": "nuts",
    "data.per": 1.0,
    "data.multiplicity": None,
    "checks.rate_ratios": False,
    "checks.exposure_law": False,
    "checks.zeros": False,
}  # keys that earlier versions lacked, with the value they implied
LATER_OF = {
    "likelihood.overdispersion": ("likelihood.name", "negative_binomial", "row"),
    "pooling.population": ("pooling.name", "hierarchical", "gamma"),
}  # the same of one choice: key -> the key and the name of the choice, and the value
if TYPE_CHECKING:
    FigureName = str
else:
    FigureName = Literal[*figures_names.NAMES, figures_names.FAILED_CHECKS]


def poolings() -> list[str]:
    """Names of the poolings."""
    from poolwise.model.poolings import POOLINGS

    return list(POOLINGS)


def likelihoods() -> list[str]:
    """Names of the likelihoods."""
    from poolwise.model.likelihoods import LIKELIHOODS

    return list(LIKELIHOODS)


def _registered(names: Callable[[], list[str]]) -> Callable[[str], str]:
    """A validator of a name in a registry, which is imported at the first check because it imports JAX."""

    def check(name: str) -> str:
        if name not in (known := names()):
            raise PydanticCustomError("unknown_name", "{rule}", {"rule": _either(map(repr, known))})
        return name

    return check


class Section(BaseModel):
    """A section of the config: rejects unknown keys, converts no types, is frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


@dataclass(frozen=True)
class AsTyped:
    """Marks a setting that holds a name: on a command line the text as typed is its value.

    Attributes
    ----------
    unset : the text that stands for no name, if the setting may be null
    """

    unset: str | None = None


# a number that YAML reads without loss is the name that it spells: a column may be called 2023
Name = Annotated[str, BeforeValidator(lambda name: str(name) if type(name) is int else name), AsTyped()]
Unnamed = Annotated[Name | None, AsTyped(unset="null")]
Levels = Annotated[dict[Name, Name] | None, BeforeValidator(lambda levels: levels or None)]  # covariate -> its level


class _Chosen(Section):
    """A section of which a choice may lack keys: they are None, and not recorded."""

    @model_serializer(mode="wrap")
    def _used(self, values: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in values(self).items() if value is not None or key not in self.unrecorded}

    @property
    def unrecorded(self) -> frozenset[str]:
        """Keys that are not recorded if they are None."""
        return frozenset(type(self).model_fields)


class Data(_Chosen):
    """The table and its columns; see `conf/data`."""

    name: Annotated[Name, Field(min_length=1), AsTyped(unset="null")]
    path: Name
    group: Name
    count: Name
    exposure: Unnamed
    per: Annotated[float, Field(gt=0, lt=1e300)]
    multiplicity: Unnamed
    covariates: Annotated[
        tuple[Name, ...] | None, Field(strict=False), BeforeValidator(lambda names: names or None)
    ] = None
    reference: Levels = None

    @property
    def unrecorded(self) -> frozenset[str]:
        """Tables without covariates have the records of earlier versions."""
        return frozenset({"covariates", "reference"})


class Pooling(_Chosen):
    """How groups share a rate; see `conf/pooling`."""

    name: Annotated[str, AfterValidator(_registered(poolings))]
    population: str | None = None
    parameterisation: str | None = None


class Likelihood(_Chosen):
    """The distribution of a count given its rate; see `conf/likelihood`."""

    name: Annotated[str, AfterValidator(_registered(likelihoods))]
    overdispersion: str | None = None


class Checks(Section):
    """Which checks run besides the gate; see `conf/checks`."""

    progress: Annotated[int, Field(ge=0)]
    groups: bool
    rate_ratios: bool
    exact: bool
    sensitivity: bool
    exposure_law: bool
    model_check: bool
    zeros: bool
    leave_group_out: bool


class Predict(_Chosen):
    """What is predicted; see `conf/predict`."""

    num_draws: Positive
    new_group: bool
    group: Annotated[Name | None, AsTyped(unset="")]  # a group may be called null, and none is blank
    new_groups: Annotated[int, Field(ge=1, le=10_000)]
    exposure: Annotated[float | None, Field(gt=0, allow_inf_nan=False)]  # None for the median exposure of the rows
    at: Levels = None
    above: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**53)], ...], Field(strict=False)]

    @property
    def unrecorded(self) -> frozenset[str]:
        """Predictions without covariates have the records of earlier versions."""
        return frozenset({"at"})


class Plots(Section):
    """Which figures are drawn; see `conf/plots`."""

    figures: Annotated[tuple[FigureName, ...], Field(strict=False)]


class Tracking(Section):
    """Where the run is logged; see `conf/tracking`."""

    uri: Annotated[str | None, AsTyped(unset="null")]
    table_limit_mb: Annotated[float, Field(ge=0)]


class Sweep(Section):
    """Options of a sweep; see `conf/sweep`."""

    dry_run: bool
    compare: bool


class Config(Section):
    """All settings of a run."""

    data: Data
    pooling: Pooling
    likelihood: Likelihood
    prior: dict[str, dict[str, Any]]
    sampler: Sampler
    device: Device
    checks: Checks
    predict: Predict
    plots: Plots
    tracking: Tracking
    sweep: Sweep
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    reuse: bool | None

    @property
    def model(self) -> "Model":
        """The model to fit."""
        from poolwise.model.count_model import count_model

        asked = self.pooling.parameterisation
        return count_model(
            self.pooling.name,
            self.likelihood.name,
            dict(self.families),
            None if asked == AUTO else asked,
            population=self.pooling.population,
            overdispersion=self.likelihood.overdispersion,
        )

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites of this model that take a prior."""
        return tuple(self.prior)

    @property
    def families(self) -> tuple[tuple[str, str], ...]:
        """(site, name of its prior's distribution), in the order of `sites`."""
        return tuple((site, str(prior["name"])) for site, prior in self.prior.items())

    def on_devices(self, num_devices: int) -> "Config":
        """The same settings with the number of devices actually used."""
        return self.model_copy(update={"device": replace(self.device, num_devices=num_devices)})

    def for_groups(self, num_groups: int) -> "Config":
        """The same settings with the parameterisation that `auto` stands for in a table of so many groups."""
        if self.pooling.parameterisation != AUTO:
            return self
        model = self.model
        chosen = {"parameterisation": model.pooling.chosen(model.likelihood, num_groups)}
        return self.model_copy(update={"pooling": self.pooling.model_copy(update=chosen)})

    def predicting_at(self, exposure: float) -> "Config":
        """The same settings with the exposure of the predicted count, unless they give one."""
        if self.predict.exposure is not None:
            return self
        return self.model_copy(update={"predict": self.predict.model_copy(update={"exposure": exposure})})

    def resolved(self) -> dict[str, Any]:
        """The config as nested plain values, ready for YAML and JSON."""
        return self.model_dump(mode="json")

    def leaves(self) -> dict[str, Any]:
        """The config as dotted key -> value."""
        return dict(leaves_of(self.resolved()))


class Calibration(Config):
    """All settings of a simulation-based calibration; see `conf/calibrate.yaml`."""

    simulations: Annotated[int, Field(ge=10, le=100_000)]  # the ECDF of fewer ranks shows nothing
    draws: Annotated[int, Field(ge=4, le=9999)]
    thin: Positive
    batch: Positive


def check(composed: DictConfig | Mapping[str, Any]) -> Config:
    """Check the composed config of a run; see `check_as`."""
    return check_as(Config, composed)


def check_as[Settings: Config](schema: type[Settings], composed: DictConfig | Mapping[str, Any]) -> Settings:
    """Check a composed config and return its settings.

    Parameters
    ----------
    schema : `Config` or a subclass

    Raises
    ------
    ConfigError
        with one line per fault: key, value and remedy.
    """
    raw = _plain(composed)
    priors, prior_faults = _used_priors(raw)
    raw["prior"] = priors
    choice_faults = _keep_used_choices(raw)
    faults = [*_missing(raw), *choice_faults, *prior_faults, *_engine_faults(raw.get("sampler"))]
    try:
        config = schema.model_validate(raw)
    except ValidationError as error:
        named = {fault.split(" ")[0] for fault in faults}
        found = [_sentence(each, schema) for each in error.errors()]
        faults += [fault for fault in found if fault.split(" ")[0] not in named]
    else:
        faults += [*_credential_faults(config.tracking.uri), *_data_faults(config.data)]
        faults += _prediction_faults(config.predict)
        faults = faults or _refusals(config)
    if faults:
        raise ConfigError(scrub("\n".join(faults))) from None
    return config


def leaves_of(nested: Mapping[str, Any], prefix: str = "") -> typing.Iterator[tuple[str, Any]]:
    """Yield dotted key and value of every leaf; an empty section counts as a leaf."""
    for key, value in nested.items():
        if isinstance(value, Mapping) and value:
            yield from leaves_of(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def names_of(schema: type[BaseModel] = Config) -> dict[str, str | None]:
    """The settings that hold names, dotted, each with the text that stands for no name."""
    found: dict[str, str | None] = {}
    for name, field in schema.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            found |= {f"{name}.{key}": unset for key, unset in names_of(field.annotation).items()}
        elif marks := [each for each in field.metadata if isinstance(each, AsTyped)]:
            found[name] = marks[-1].unset
    return found


def unknown_key(key: str, schema: type[Config] = Config) -> str:
    """Message for a key that is not in the schema, with the nearest known key."""
    if re.match(r"prior[./]", key):
        return (
            f"unknown key {key}. A prior has the keys of its family. Choose the family first, "
            f"prior/<site>=<choice>; sites are {', '.join(_sites())}."
        )
    known = list(_schema_keys(schema)) if "." in key else list(schema.model_fields)
    section, _, last = key.rpartition(".")
    siblings = [each for each in known if each.rpartition(".")[0] == section]
    if section and siblings:  # the section is right: it would make unlike keys look alike
        of_last = difflib.get_close_matches(last, [each.rpartition(".")[2] for each in siblings], n=1, cutoff=0.6)
        close = [f"{section}.{each}" for each in of_last]
    else:
        close = difflib.get_close_matches(key, known, n=1, cutoff=0.7)
    close = [RENAMED[key]] if key in RENAMED else close
    if key in known:  # composed from choices that lack it
        choice = key.rpartition(".")[0]
        return f"{key} is not a setting of the chosen {choice}. Leave it out, or choose another {choice}=<choice>."
    if close:
        return f"unknown key {key}. Did you mean {close[0]}?"
    return f"unknown key {key}." + (f" Known keys: {', '.join(siblings)}." if siblings else "")


def upgraded(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Convert dotted keys and values recorded by any version to those of this version."""
    of_choice = {key: value for key, (named, name, value) in LATER_OF.items() if leaves.get(named) == name}
    return LATER | of_choice | renamed(leaves)


def renamed(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Rename keys and values to those of this version; add none."""
    choices = {key: RENAMED_CHOICES[key].get(str(leaves[key]), leaves[key]) for key in RENAMED_CHOICES.keys() & leaves}
    return {RENAMED.get(key, key): value for key, value in {**leaves, **choices}.items()}


def hydra_fault(error: Exception, schema: type[Config] = Config) -> ConfigError:
    """Convert a Hydra error: an unknown key or choice, with the known ones."""
    text = str(error)
    if found := re.search(r"Could not (?:override|delete from config\.) '([^']+)'", text):
        return ConfigError(unknown_key(found[1], schema))
    if found := re.match(r"Ambiguous value for argument '(.+)'\n", text):
        key, _, values = found[1].partition("=")
        remedy = f"Add -m for a sweep, or write a list: {key}=[{values}]."
        return ConfigError(f"{found[1]} gives one run several values. {remedy}")
    if found := re.search(r"Could not find '([^']+)/([^'/]+)'", text):
        listed = text.partition(":\n")[2].partition("Config search path")[0].splitlines()
        choices = ", ".join(sorted(each.strip() for each in listed if each.strip()))
        return ConfigError(f"unknown choice {found[1]}={found[2]}. Choices: {choices}.")
    return ConfigError(text.strip().splitlines()[0])


def _plain(composed: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    try:
        node = composed if isinstance(composed, DictConfig) else OmegaConf.create(dict(composed))
        raw = OmegaConf.to_container(node, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(str(error).splitlines()[0]) from None
    raw = typing.cast("dict[str, Any]", raw)
    raw.pop("hydra", None)
    raw.pop("experiments", None)  # a choice without settings of its own
    data = raw.get("data")
    if isinstance(data, dict) and data.get("name") is None and isinstance(data.get("path"), str):
        data["name"] = "table" if data["path"] == "???" else Path(data["path"]).name.split(".")[0] or "table"
    return raw


def _keep_used_choices(raw: dict[str, Any]) -> list[str]:
    """Drop keys without a choice, so a sweep may set them for all jobs, and fill in defaults; the faults."""
    from poolwise.model.likelihoods import LIKELIHOODS, likelihood_of, overdispersions
    from poolwise.model.poolings import POOLINGS, pooling_of, populations

    faults = []
    for section, key, known, choices in (
        ("likelihood", "overdispersion", LIKELIHOODS, overdispersions),
        ("pooling", "population", POOLINGS, populations),
    ):
        given = raw.get(section)
        if not isinstance(given, dict) or given.get("name") not in known:  # reported by the schema
            return []
        offered, others = choices(given["name"]), {name: value for name, value in given.items() if name != key}
        raw[section] = others | ({key: given.get(key) or offered[0]} if offered else {})
        if offered and raw[section][key] not in offered:
            faults.append(f"{section}.{key} is {given[key]!r}; it must be {_either(map(repr, offered))}.")
    pooling, likelihood = raw["pooling"], raw["likelihood"]
    if faults or "rates" in pooling:  # an old key, which the schema reports
        return faults
    used = pooling_of(pooling["name"], pooling.get("population"))
    if len(used.parameterisations) == 1:
        raw["pooling"] = {key: value for key, value in pooling.items() if key != "parameterisation"}
        return []
    noise = likelihood_of(likelihood["name"], likelihood.get("overdispersion"))
    asked, offered = pooling.get("parameterisation"), used.offered(noise)
    if asked == AUTO or asked in offered:
        return []
    if asked in used.parameterisations:
        choice = noise.name + (f" with overdispersion {noise.overdispersion}" if noise.overdispersion else "")
        return [f"pooling.parameterisation is {asked}, which {choice} does not support; choose {_either(offered)}."]
    place = (
        "pooling.parameterisation must be given:"
        if asked is None
        else f"pooling.parameterisation is {asked!r}; it must be"
    )
    return [f"{place} {_either(map(repr, (AUTO, *offered)))}."]


def _used_priors(raw: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The priors that the composed model uses, with their faults and those of unknown sites."""
    from poolwise.model.count_model import SITES, sites_of
    from poolwise.model.likelihoods import LIKELIHOODS
    from poolwise.model.poolings import POOLINGS
    from poolwise.model.priors import faults_of

    priors = raw.get("prior")
    if not isinstance(priors, dict):
        return {}, ["prior must have one choice per site, e.g. prior=notebook."]
    faults = [
        f"prior.{site} is not a site of any model. Remove it; sites are {', '.join(SITES)}."
        for site in priors
        if site not in SITES
    ]
    pooling, likelihood = (str((raw.get(group) or {}).get("name")) for group in ("pooling", "likelihood"))
    if pooling not in POOLINGS or likelihood not in LIKELIHOODS:  # reported by the schema
        return {}, faults
    sites = sites_of(pooling, likelihood, has_covariates=bool((raw.get("data") or {}).get("covariates")))
    faults += [fault for site in sites for fault in faults_of(SITES[site], priors.get(site))]
    return {site: _as_floats(priors[site]) for site in sites if isinstance(priors.get(site), dict)}, faults


def _sites() -> list[str]:
    from poolwise.model.count_model import SITES

    return list(SITES)


def _as_floats(prior: dict[str, Any]) -> dict[str, Any]:
    """Convert whole numbers to floats: rate 1 and rate 1.0 are the same prior."""
    return {key: float(value) if type(value) is int and abs(value) < 2**53 else value for key, value in prior.items()}


def _missing(raw: dict[str, Any]) -> list[str]:
    """Faults of keys without a value (`???`), as in `data=table` without `data.path`."""
    return [f"{key} must be given: {key}=<value>." for key, value in leaves_of(raw) if value == "???"]


def _credential_faults(uri: str | None) -> list[str]:
    if uri is None or public(uri) == uri:
        return []
    return [
        "tracking.uri contains a user name or password, and configs are recorded. "
        f"Put the whole address into MLFLOW_TRACKING_URI and write tracking.uri={public(uri)}."
    ]


def _engine_faults(sampler: Any) -> list[str]:
    from poolwise.inference.engines import ENGINES

    name = sampler.get("name") if isinstance(sampler, dict) else None
    if not isinstance(name, str) or name == "???":  # reported elsewhere
        return []
    if name in ENGINES:
        absent = [key for key in ENGINES[name].settings if key not in sampler]
        zero = [key for key in ENGINES[name].settings if sampler.get(key) == 0]
        return [
            *(f"sampler.{key} is missing. Give it: sampler.{key}=<value>." for key in absent),
            *(f"sampler.{key} is {sampler[key]!r}; it must be greater than 0." for key in zero),
        ]
    return [f"sampler.name is {name!r}; it must be {_either(map(repr, ENGINES))}."]


def _refusals(config: Config) -> list[str]:
    """Why the engine cannot sample the model; the settings themselves are valid."""
    from poolwise.inference.engines import ENGINES

    refusal = ENGINES[config.sampler.name].refusal(config.model)
    return [refusal] if refusal else []


def _data_faults(data: Data) -> list[str]:
    if data.per == 1 or data.exposure is not None:
        return []
    return [f"data.per is {data.per:g}, but no exposures are named to divide by it. Name them: data.exposure=<column>."]


def _prediction_faults(predict: Predict) -> list[str]:
    if predict.group is not None and predict.new_groups > 1:
        return [f"predict.new_groups={predict.new_groups} is not about a group of the data. Leave out predict.group."]
    if predict.new_group or predict.group is not None:
        return []
    return ["predict.new_group=false needs a group of the data to predict. Name it: predict.group=<label>."]


def _sentence(error: Any, schema: type[Config]) -> str:
    """Format a pydantic error as `key is value; rule`."""
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return unknown_key(key, schema)
    if error["type"] == "missing":
        return f"{key} is missing. Give it: {key}=<value>."
    rule = re.sub(r"^Input should be (a valid )?", "", error["msg"]).replace("tuple", "list")
    if error["type"] == "string_type":
        rule += ". In a file, put the text in quotes"
    return f"{key} is {error['input']!r}; it must be {rule}."


def _either(choices: Iterable[str]) -> str:
    """`a, b or c`."""
    *others, last = choices
    return f"{', '.join(others)} or {last}" if others else last


def _schema_keys(section: Any, prefix: str = "") -> typing.Iterator[str]:
    """Dotted names of the leaves of a schema."""
    fields = section.model_fields if hasattr(section, "model_fields") else section.__pydantic_fields__
    for name, each in fields.items():
        if hasattr(each.annotation, "__pydantic_fields__"):
            yield from _schema_keys(each.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"
