"""A command line to a requested multirun: the overrides and config of every job."""

import copy
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from hydra import compose
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from poolwise.arguments import asks_for_sweep, composing, quoted
from poolwise.config import Config, check, hydra_fault
from poolwise.errors import ConfigError, RequestError

VALUE = re.compile(r"(?!hydra\.)\w+(\.\w+)+=")  # the start of an override that gives a value: no choice, + or ~


@dataclass(frozen=True)
class Request:
    """A requested multirun: its overrides, its name, and the overrides of each job if known.

    Attributes
    ----------
    added : further overrides: the core figures, unless the request chooses others, and names from an experiment's file
    config_dir : a folder with further choices, if the request names one
    """

    overrides: tuple[str, ...]
    added: tuple[str, ...]
    name: str
    launcher: str
    base: DictConfig
    jobs: tuple[tuple[str, ...], ...]
    config_dir: str | None = None


def requested(arguments: Sequence[str]) -> Request | None:
    """The multirun that a command line requests, or None if it requests anything else."""
    if not any(map(asks_for_sweep, arguments)):
        return None
    asked = get_args_parser().parse_args(list(arguments))
    if asked.help or asked.hydra_help or asked.cfg or asked.info or asked.shell_completion:
        return None
    with composing(asked.config_dir):
        parsed = OverridesParser.create().parse_overrides(asked.overrides)
        fixed = [each.input_line or "" for each in parsed if not each.is_sweep_override()]
        base = compose("config", overrides=fixed, return_hydra_config=True)
        if not asked.multirun and base.hydra.mode is not RunMode.MULTIRUN:
            return None
        swept = [each.get_key_element() for each in parsed if each.is_sweep_override()]
        name = base.hydra.runtime.choices.get("experiments") or "sweep " + ", ".join(swept)
        keys = [each.get_key_element() for each in parsed] + list(base.hydra.sweeper.params or {})
        is_chosen = any(key.startswith("plots") for key in keys) or base.hydra.runtime.choices["plots"] != "standard"
        added = [] if is_chosen else ["plots=core"]
        given = {each.get_key_element() for each in parsed}
        written = (f"{key}={value}" for key, value in (base.hydra.sweeper.params or {}).items() if key not in given)
        added += [typed for each in written if (typed := quoted(each, may_sweep=True)) != each]
        is_grid = base.hydra.sweeper._target_.endswith("BasicSweeper")
        jobs = _jobs(base, [*asked.overrides, *added]) if is_grid else ()
        launcher = str(base.hydra.runtime.choices["hydra/launcher"])
        return Request(tuple(asked.overrides), tuple(added), name, launcher, base, jobs, asked.config_dir)


def checked(request: Request) -> list[Config]:
    """The config of every job, or one error about all faulty jobs; the base config only if the jobs are unknown."""
    configs, faults, bases = [], [], dict[tuple[str, ...], DictConfig]()
    with composing(request.config_dir):
        for number, overrides in enumerate(request.jobs):
            try:
                configs.append(check(_composed(overrides, bases)))
            except HydraException as error:
                faults.append(f"job {number}: {hydra_fault(error)}")
            except RequestError as error:
                faults += [f"job {number} ({_told(overrides, request)}): {line}" for line in str(error).splitlines()]
    if not request.jobs:
        settings = [str(key) for key in request.base if key != "hydra"]  # hydra.job.num is known only in a job
        configs.append(check(OmegaConf.masked_copy(request.base, settings)))
    if faults:
        raise ConfigError("\n".join(faults))
    _check_devices(configs, request.launcher)
    return configs


def _composed(overrides: Sequence[str], bases: dict[tuple[str, ...], DictConfig]) -> DictConfig:
    """The config of a job; jobs that differ only in values are composed once, which takes most of the time.

    Parameters
    ----------
    bases : choices -> config without the values; the missing one is added
    """
    values = [each for each in overrides if VALUE.match(each)]
    choices = tuple(each for each in overrides if not VALUE.match(each))
    if choices not in bases:
        bases[choices] = compose("config", overrides=list(choices))
    config = copy.deepcopy(bases[choices])
    ConfigLoaderImpl._apply_overrides_to_config(OverridesParser.create().parse_overrides(values), config)
    return config


def _jobs(base: DictConfig, overrides: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """The overrides of every job of a grid; the command line overrides the experiment's file, key by key."""
    written = [f"{key}={value}" for key, value in (base.hydra.sweeper.params or {}).items()]
    parsed = OverridesParser.create().parse_overrides([*written, *overrides])
    (batch,) = BasicSweeper.split_arguments(parsed, None)
    return tuple(tuple(job) for job in batch)


def _told(overrides: Sequence[str], request: Request) -> str:
    """The overrides that a job does not share with all others."""
    common = Counter(each for job in request.jobs for each in job)
    return " ".join(each for each in overrides if common[each] < len(request.jobs)) or "every job"


def _check_devices(configs: Sequence[Config], launcher: str) -> None:
    """Refuse jobs with different device settings, which cannot change within a process."""
    if launcher.startswith("submitit"):  # one process per job
        return
    settings = {(each.device.platform, each.device.x64, each.device.num_devices) for each in configs}
    if len(settings) > 1:
        told = ", ".join(f"{p} x64={x} num_devices={n}" for p, x, n in sorted(settings, key=str))
        raise ConfigError(
            f"the jobs request different devices ({told}), which cannot change within a process. Run one sweep per "
            "device, or one process per job: hydra/launcher=submitit_local."
        )
