"""A command line to a requested multirun: the overrides and config of every job."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from poolwise.arguments import asks_for_sweep, quoted
from poolwise.config import Config, check, hydra_fault
from poolwise.errors import ConfigError, RequestError
from poolwise.paths import CONF


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


@contextmanager
def composing(config_dir: str | None) -> Iterator[None]:
    """Compose configs as Hydra's command line does, with the choices of `--config-dir`."""
    if config_dir is not None and not Path(config_dir).is_dir():
        raise ConfigError(f"--config-dir {config_dir} is not a folder. It is relative to {Path.cwd()}.")
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        if config_dir is not None:
            folder, schema = f"file://{Path(config_dir).resolve()}", SearchPathQuery(provider="schema")
            path = create_config_search_path(str(CONF))
            path.prepend(provider="command-line", path=folder, anchor=schema)
            GlobalHydra.instance().clear()
            Hydra.create_main_hydra2(task_name="app", config_search_path=path)
        yield


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
    configs, faults = [], []
    with composing(request.config_dir):
        for number, overrides in enumerate(request.jobs):
            try:
                configs.append(check(compose("config", overrides=list(overrides))))
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
