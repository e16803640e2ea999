"""Fit one model or a sweep of models: compose a config, check it, fit, exit with the right code.

This module imports only what composing needs. The pipeline imports jax and mlflow, so `--help`, `--cfg job` and
tab completion answer at once.
"""

import os
import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from poolwise import help
from poolwise.arguments import as_typed
from poolwise.config import check
from poolwise.errors import PoolwiseError
from poolwise.exit_codes import end, exit_codes
from poolwise.paths import CONF, register_resolvers
from poolwise.sweeps import launch
from poolwise.sweeps import request as sweep_request
from poolwise.tracking import credentials

register_resolvers()
help.register()


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def main(composed: DictConfig) -> float | None:
    """Run one job and return its elpd_loo, which sweepers maximise; None if it failed."""
    overrides = list(HydraConfig.get().overrides.task)
    if HydraConfig.get().mode is RunMode.MULTIRUN:
        return launch.job(composed, overrides)
    try:
        config = check(composed)
        if config.sweep.dry_run:
            launch.show_alone(config, overrides)
            return None
        from poolwise.runs.pipeline import run

        return run(config, overrides)
    except PoolwiseError as error:
        end(error)  # here: Hydra would print a message of its own first


def cli() -> None:
    """The console command `poolwise-run`."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra raises errors instead of printing them
    with exit_codes():
        sys.argv[1:] = as_typed(credentials.hide(sys.argv[1:]))
        if help.shown(sys.argv[1:], "config"):
            return
        request = sweep_request.requested(sys.argv[1:])
        if request is None:
            main()
        else:
            launch.run(request, main)


if __name__ == "__main__":
    cli()
