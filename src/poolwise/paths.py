"""Paths of the checkout, its config and the outputs of runs."""

import os
from pathlib import Path

from omegaconf import OmegaConf

PACKAGE = Path(__file__).resolve().parent
ROOT = next((folder for folder in (PACKAGE, PACKAGE.parents[1]) if (folder / "conf").is_dir()), PACKAGE)
CONF = ROOT / "conf"
HOST, PORT = "127.0.0.1", 5000  # of the MLflow UI
FROZEN = "POOLWISE_SETTINGS"  # environment variable: the folder of the running sweep


def resolve_path(path: str) -> Path:
    """Resolve a relative path: in the working directory if it exists there, else in the checkout."""
    here = Path(path).expanduser()
    return here if here.is_absolute() or here.exists() or not (ROOT / path).exists() else ROOT / path


def outputs() -> Path:
    """Folder of all outputs: `POOLWISE_OUTPUTS`, else `outputs/` in the checkout or the working directory."""
    if named := os.environ.get("POOLWISE_OUTPUTS"):
        return Path(named).absolute()
    return (ROOT if (ROOT / "pyproject.toml").is_file() else Path.cwd()) / "outputs"


def register_resolvers() -> None:
    """Register the resolvers that `conf/config.yaml` uses.

    `${poolwise.outputs:}`; `${poolwise.sweep:}`, the folder of the running sweep, with the settings as they were when
    it began; `${poolwise.root:}`, the folder that contains `experiments/`: that of the sweep if one is running.
    """
    folder = os.environ.get(FROZEN)
    OmegaConf.register_new_resolver("poolwise.outputs", lambda: str(outputs()), replace=True)
    OmegaConf.register_new_resolver("poolwise.sweep", lambda: folder or str(outputs() / "sweeps"), replace=True)
    OmegaConf.register_new_resolver("poolwise.root", lambda: folder or str(ROOT), replace=True)
