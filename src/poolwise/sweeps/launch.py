"""Launch a multirun.

All jobs are composed and checked before the first one starts. The settings are frozen. The fits are children of one
parent run. A job that fails does not stop the others. At the end no run is left RUNNING, the parent lists every job,
and the runs are compared. A repeated sweep fits only the missing jobs.
"""

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, OmegaConf

from poolwise.config import Config, check
from poolwise.errors import PoolwiseError, RequestError
from poolwise.garbage import collect_rarely, skip_libraries
from poolwise.paths import FROZEN, ROOT, outputs, register_resolvers
from poolwise.sweeps.request import Request, checked
from poolwise.tracking.credentials import store_uri

PARENT = "POOLWISE_PARENT"  # environment variable for jobs: the run id of their sweep
STORE = "POOLWISE_STORE"  # environment variable for jobs: the store of their sweep, if it is a spool
AT_TERMINAL = sys.stderr.isatty()  # when the process, also that of a worker, starts
PRINTED = "printed.log"  # in the folder of a job: what its worker printed
CARRIED = (PARENT, STORE, FROZEN, "POOLWISE_OUTPUTS", "MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME")


class Carry(Callback):
    """Carries the sweep's environment to jobs in other processes; the object is pickled for them."""

    def __init__(self) -> None:
        self.environment = {name: os.environ[name] for name in CARRIED if name in os.environ}
        self.process = os.getpid()

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Set the environment of the sweep; a worker at its terminal prints to a file of the job instead."""
        os.environ.update(self.environment)
        collect_rarely()
        if os.getpid() != self.process and AT_TERMINAL:  # which shows the table of the sweep
            file = os.open(Path(config.hydra.runtime.output_dir) / PRINTED, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
                os.dup2(file, stream.fileno())
            os.close(file)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """After the first job, all that jobs need is imported and compiled."""
        skip_libraries()


def run(request: Request, launch: Callable[[], object]) -> None:
    """Check, list and launch the jobs, then report their outcomes.

    Raises
    ------
    ConfigError, DataError
        with one line per faulty job, before any starts.
    SweepError
        if some jobs failed or did not run.
    """
    configs = checked(request)
    from poolwise.sweeps import outcomes, plan
    from poolwise.sweeps import parent as sweep_parent

    uri = plan.store_of(configs)
    planned = plan.plan(request.jobs, configs, uri=uri)
    plan.show(planned)
    if any(each.sweep.dry_run for each in configs):
        return
    with (
        frozen_settings(request.config_dir) as arguments,
        sweep_parent.parent_run(request, configs, planned, uri=uri) as parent,
    ):
        sys.argv[1:] = [*request.added, *sys.argv[1:], *arguments]
        os.environ[PARENT], os.environ[STORE] = parent.run_id, parent.uri if parent.is_spooled else ""
        with sweep_parent.table(parent, planned), composed_before():
            ended = sweep_parent.settled(parent, launch)
        outcomes.conclude(parent, planned, configs, ended)


@contextmanager
def composed_before() -> Iterator[None]:
    """Keep Hydra from composing every job once more before the first: `checked` has done so."""
    validate = Sweeper.validate_batch_is_legal
    Sweeper.validate_batch_is_legal = lambda sweeper, batch: None  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        Sweeper.validate_batch_is_legal = validate  # type: ignore[method-assign]


def show_alone(config: Config, overrides: Sequence[str]) -> None:
    """Print what a single run would do; it reuses a finished run only if `reuse` is set."""
    from poolwise.sweeps import plan

    as_job = config.model_copy(update={"reuse": bool(config.reuse)})
    plan.show(plan.plan([overrides], [as_job], uri=plan.store_of([config])))


@contextmanager
def frozen_settings(config_dir: str | None = None) -> Iterator[list[str]]:
    """Copy `conf/`, `experiments/` and the folder of `--config-dir`, so changes of the originals do not affect jobs.

    Yields the arguments that make Hydra read the copies.
    """
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    folder = outputs() / "sweeps" / f"{stamp}-{os.getpid()}"
    for name in ("conf", "experiments"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name)
    arguments = ["--config-path", str(folder / "conf")]
    if config_dir is not None:
        shutil.copytree(config_dir, folder / "config-dir")
        arguments += ["--config-dir", str(folder / "config-dir")]
    os.environ[FROZEN] = str(folder)
    os.environ["POOLWISE_OUTPUTS"] = str(outputs())  # workers may have another working directory
    register_resolvers()
    try:
        yield arguments
    finally:
        os.environ.pop(FROZEN, None)


def job(composed: DictConfig, overrides: list[str]) -> float | None:
    """Run one job; a failure is recorded and printed and does not stop the other jobs."""
    from poolwise.runs.pipeline import run as run_one
    from poolwise.tracking import store

    try:
        parent, uri = (os.environ.get(name, "") for name in (PARENT, STORE))
        return run_one(check(composed), overrides, parent=parent, uri=uri)
    except Exception as error:
        if isinstance(error, RequestError):  # it has no run to record the error
            uri = os.environ.get(STORE) or store_uri(OmegaConf.select(composed, "tracking.uri"), outputs())
            with suppress(*store.OUTAGES):
                store.tag(os.environ[PARENT], f"refused.{HydraConfig.get().job.num}", str(error), uri=uri)
        kind = "" if isinstance(error, PoolwiseError) else f"{type(error).__name__}: "
        print(f"failed: {' '.join(overrides)}: {kind}{error}", file=sys.stderr)
        return None  # for a search a failed trial; NaN would end the search
