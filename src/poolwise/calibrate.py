"""Calibrate one model by simulation, as a logged run with a verdict.

    config -> truths and tables -> fits -> ranks -> verdict, figure -> MLflow

This module imports only what composing needs; `calibration` imports jax and mlflow.
"""

import os
import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig

from poolwise import help
from poolwise.arguments import as_typed, asks_for_sweep
from poolwise.config import Calibration, check_as, hydra_fault
from poolwise.errors import ConfigError, PoolwiseError
from poolwise.exit_codes import end, exit_codes
from poolwise.paths import CONF, register_resolvers
from poolwise.report.terminal import say
from poolwise.tracking import credentials

register_resolvers()
help.register()


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="calibrate")
def main(composed: DictConfig) -> None:
    """Calibrate the composed model."""
    try:
        config = check_as(Calibration, composed)
        if config.sweep.dry_run:
            model = f"{config.pooling.name} {config.likelihood.name} model"
            say(f"would simulate {config.simulations} tables like {config.data.path} and fit the {model} to each")
            return
        from poolwise.calibration.pipeline import calibrate

        calibrate(config, list(HydraConfig.get().overrides.task))
    except PoolwiseError as error:
        end(error)  # here: Hydra would print a message of its own first


def cli() -> None:
    """The console command `poolwise-calibrate`."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises errors instead of printing them
    with exit_codes():
        for each in sys.argv[1:]:
            if asks_for_sweep(each):
                raise ConfigError(
                    f"{each} requests a sweep, but a calibration takes one model. Start one command per model: "
                    "for pooling in pooled unpooled; do python -m poolwise.calibrate pooling=$pooling; done"
                )
        sys.argv[1:] = as_typed(credentials.hide(sys.argv[1:]))
        try:
            if not help.shown(sys.argv[1:], "calibrate"):
                main()
        except HydraException as error:
            raise hydra_fault(error, Calibration) from None


if __name__ == "__main__":
    cli()
