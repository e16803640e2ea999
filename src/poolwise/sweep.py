"""What makes a multirun whole.

Every job is composed and checked before the first one starts; the settings are frozen; the fits are children of one
parent run; a job that fails ends only itself; at the end no run is left RUNNING, the parent lists every job, and the
runs are compared. Started again, a sweep fits only what is missing.
"""

import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from poolwise.config import CONF, FROZEN, ROOT, Config, check, hydra_fault, outputs, register_resolvers
from poolwise.credentials import store_uri
from poolwise.errors import ConfigError, PoolwiseError, RequestError

PARENT = "POOLWISE_PARENT"  # the environment variable that tells jobs the run id of their sweep
STORE = "POOLWISE_STORE"  # and the one that tells them its store, where that is a spool
CARRIED = (PARENT, STORE, FROZEN, "POOLWISE_OUTPUTS", "MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME")
SETTLING_SECONDS = 20  # that workers get to end when their sweep does
SHOWN = 60  # jobs in a printed list


class Carry(Callback):
    """Takes the sweep's environment to jobs in other processes: the object is pickled into them."""

    def __init__(self) -> None:
        self.environment = {name: os.environ[name] for name in CARRIED if name in os.environ}

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Set what the sweep has set."""
        os.environ.update(self.environment)


@dataclass(frozen=True)
class Request:
    """A multirun as asked: its overrides, the sweeper's name, and the overrides of each job if they are known.

    Attributes
    ----------
    added : overrides that nobody asked for: its jobs draw the core figures only, unless another choice is made
    """

    overrides: tuple[str, ...]
    added: tuple[str, ...]
    name: str
    launcher: str
    base: DictConfig
    jobs: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Planned:
    """A job before it runs.

    Attributes
    ----------
    run_id : of the finished run that it is reused from, or empty
    remark : what the list of jobs says of it
    """

    number: int
    name: str
    run_fingerprint: str
    run_id: str
    remark: str


def requested(arguments: Sequence[str]) -> Request | None:
    """The multirun that a command line asks for, None if it asks for anything else."""
    if not any(each in ("-m", "--multirun") or each.startswith(("experiments=", "hydra.mode=")) for each in arguments):
        return None
    asked = get_args_parser().parse_args(list(arguments))
    if asked.help or asked.hydra_help or asked.cfg or asked.info or asked.shell_completion:
        return None
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        parsed = OverridesParser.create().parse_overrides(asked.overrides)
        fixed = [each.input_line or "" for each in parsed if not each.is_sweep_override()]
        base = compose("config", overrides=fixed, return_hydra_config=True)
        if not asked.multirun and base.hydra.mode is not RunMode.MULTIRUN:
            return None
        swept = [each.get_key_element() for each in parsed if each.is_sweep_override()]
        name = base.hydra.runtime.choices.get("experiments") or "sweep " + ", ".join(swept)
        keys = [each.get_key_element() for each in parsed] + list(base.hydra.sweeper.params or {})
        is_chosen = any(key.startswith("plots") for key in keys) or base.hydra.runtime.choices["plots"] != "full"
        added = () if is_chosen else ("plots=core",)
        is_grid = base.hydra.sweeper._target_.endswith("BasicSweeper")
        jobs = _jobs(base, [*asked.overrides, *added]) if is_grid else ()
        launcher = str(base.hydra.runtime.choices["hydra/launcher"])
        return Request(tuple(asked.overrides), added, name, launcher, base, jobs)


def run(request: Request, launch: Callable[[], object]) -> None:
    """Check, list, launch, and settle what the launch left.

    Raises
    ------
    ConfigError, DataError
        with a line for every faulty job, before any starts.
    SweepError
        if some jobs failed or did not run.
    """
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        configs = checked(request)
    from poolwise import supervise

    uri = supervise.store_of(configs)
    planned = supervise.plan(request.jobs, configs, uri=uri)
    supervise.show(planned)
    if any(each.sweep.dry_run for each in configs):
        return
    with frozen_settings() as arguments, supervise.parent_run(request, configs, planned, uri=uri) as parent:
        sys.argv += [*request.added, *arguments]
        os.environ[PARENT], os.environ[STORE] = parent.run_id, parent.uri if parent.is_waiting else ""
        with supervise.table(parent, planned):
            ended = supervise.settled(parent, launch)
        supervise.conclude(parent, planned, configs, ended)


def show_alone(config: Config, overrides: Sequence[str]) -> None:
    """Print what a single run would do: it reuses a finished run only if asked to."""
    from poolwise import supervise

    as_job = config.model_copy(update={"reuse": bool(config.reuse)})
    supervise.show(supervise.plan([overrides], [as_job], uri=supervise.store_of([config])))


def checked(request: Request) -> list[Config]:
    """The config of every job, or one error that names all faulty ones; of the base alone if the jobs are not known."""
    configs, faults = [], []
    for number, overrides in enumerate(request.jobs):
        try:
            configs.append(check(compose("config", overrides=list(overrides))))
        except HydraException as error:
            faults.append(f"job {number}: {hydra_fault(error)}")
        except RequestError as error:
            faults += [f"job {number} ({_told(overrides, request)}): {line}" for line in str(error).splitlines()]
    if not request.jobs:
        settings = [str(key) for key in request.base if key != "hydra"]  # hydra.job.num is known in a job alone
        configs.append(check(OmegaConf.masked_copy(request.base, settings)))
    if faults:
        raise ConfigError("\n".join(faults))
    _check_devices(configs, request.launcher)
    return configs


@contextmanager
def frozen_settings() -> Iterator[list[str]]:
    """A copy of `conf/` and `experiments/` that the jobs compose from, however the originals change meanwhile.

    Yields the arguments that make Hydra read the copy.
    """
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    folder = outputs() / "sweeps" / f"{stamp}-{os.getpid()}"
    for name in ("conf", "experiments"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name)
    os.environ[FROZEN] = str(folder)
    os.environ["POOLWISE_OUTPUTS"] = str(outputs())  # workers may have another working directory
    register_resolvers()
    try:
        yield ["--config-path", str(folder / "conf")]
    finally:
        os.environ.pop(FROZEN, None)


def job(composed: DictConfig, overrides: list[str]) -> float | None:
    """One job: a failure is recorded, said, and ends nothing but itself."""
    from poolwise import store
    from poolwise.pipeline import run as run_one

    try:
        parent, uri = (os.environ.get(name, "") for name in (PARENT, STORE))
        return run_one(check(composed), overrides, parent=parent, uri=uri)
    except Exception as error:
        if isinstance(error, RequestError):  # it has no run that could say so
            uri = os.environ.get(STORE) or store_uri(OmegaConf.select(composed, "tracking.uri"), outputs())
            with suppress(*store.OUTAGES):
                store.tag(os.environ[PARENT], f"refused.{HydraConfig.get().job.num}", str(error), uri=uri)
        kind = "" if isinstance(error, PoolwiseError) else f"{type(error).__name__}: "
        print(f"failed: {' '.join(overrides)}: {kind}{error}", file=sys.stderr)
        return None  # a search takes it as a failed trial; a NaN would end the search


def _jobs(base: DictConfig, overrides: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """The overrides of every job of a grid; the command line beats the experiment's file, key by key."""
    written = [f"{key}={value}" for key, value in (base.hydra.sweeper.params or {}).items()]
    parsed = OverridesParser.create().parse_overrides([*written, *overrides])
    (batch,) = BasicSweeper.split_arguments(parsed, None)
    return tuple(tuple(job) for job in batch)


def _told(overrides: Sequence[str], request: Request) -> str:
    """What a job does not share with all others."""
    common = Counter(each for job in request.jobs for each in job)
    return " ".join(each for each in overrides if common[each] < len(request.jobs)) or "every job"


def _check_devices(configs: Sequence[Config], launcher: str) -> None:
    """Refuse jobs whose device settings cannot follow one another in a process."""
    if launcher.startswith("submitit"):  # a process for every job
        return
    settings = {(each.device.platform, each.device.x64, each.device.num_devices) for each in configs}
    if len(settings) > 1:
        told = ", ".join(f"{p} x64={x} num_devices={n}" for p, x, n in sorted(settings, key=str))
        raise ConfigError(
            f"the jobs ask for different devices ({told}), which cannot change within a process. Make a sweep of "
            "each, or give every job a process of its own: hydra/launcher=submitit_local."
        )


def settle(alive: Callable[[], bool]) -> None:
    """Wait for workers to end, for `SETTLING_SECONDS` at most."""
    deadline = time.monotonic() + SETTLING_SECONDS
    while alive() and time.monotonic() < deadline:
        time.sleep(0.5)
