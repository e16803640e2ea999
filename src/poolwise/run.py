"""The command: compose a config, check it, fit, end with the right exit code.

Only what composing needs is imported here; jax and mlflow come with the pipeline, so that `--help`, `--cfg job` and
tab completion answer at once.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig

from poolwise import credentials, sweep
from poolwise.config import CONF, check, hydra_fault, register_resolvers
from poolwise.errors import PoolwiseError

register_resolvers()


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def main(composed: DictConfig) -> float | None:
    """One job: returns elpd_loo, for sweepers that search; None if it failed."""
    overrides = list(HydraConfig.get().overrides.task)
    if HydraConfig.get().mode is RunMode.MULTIRUN:
        return sweep.job(composed, overrides)
    try:
        config = check(composed)
        if config.sweep.dry_run:
            sweep.show_alone(config, overrides)
            return None
        from poolwise.pipeline import run

        return run(config, overrides)
    except PoolwiseError as error:
        end(error)  # here, or Hydra would announce it in words of its own first


def cli() -> None:
    """The console command `poolwise-run`."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra hands errors on instead of printing them
    sys.argv[1:] = credentials.hide(sys.argv[1:])
    with exit_codes():
        request = sweep.requested(sys.argv[1:])
        if request is None:
            main()
        else:
            sweep.run(request, main)


@contextmanager
def exit_codes() -> Iterator[None]:
    """End the process as the contract says: 0 done, 1 failed, 2 a wrong request, 130 and 143 stopped from outside."""
    signal.signal(signal.SIGTERM, _terminated)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would not hear Ctrl-C
    try:
        yield
    except HydraException as error:
        end(hydra_fault(error))
    except ValueError as error:
        if not str(error).startswith("Config group override"):  # Hydra's word for pooling=null
            raise
        end(hydra_fault(error))
    except PoolwiseError as error:
        end(error)
    except KeyboardInterrupt:
        sys.exit(130)


def end(error: PoolwiseError) -> NoReturn:
    """Say what went wrong, a line a fault, and end the process with its exit code."""
    for line in str(error).splitlines():
        print(f"{type(error).__name__}: {line}", file=sys.stderr)
    sys.exit(error.exit_code)


def _terminated(signum: int, frame: object) -> NoReturn:
    sys.exit(128 + signum)


if __name__ == "__main__":
    cli()
