"""Where things are: the checkout, its config, and what runs leave."""

import os
from pathlib import Path

from omegaconf import OmegaConf

PACKAGE = Path(__file__).resolve().parent
ROOT = next((folder for folder in (PACKAGE, PACKAGE.parents[1]) if (folder / "conf").is_dir()), PACKAGE)
CONF = ROOT / "conf"
FROZEN = "POOLWISE_SETTINGS"  # the environment variable that names the folder of the sweep that is running


def resolve_path(path: str) -> Path:
    """Where a relative path leads: into the working directory if something is there, else into the checkout."""
    here = Path(path).expanduser()
    return here if here.is_absolute() or here.exists() or not (ROOT / path).exists() else ROOT / path


def outputs() -> Path:
    """Where runs leave everything: `POOLWISE_OUTPUTS`, else `outputs/` in the checkout or the working directory."""
    if named := os.environ.get("POOLWISE_OUTPUTS"):
        return Path(named).absolute()
    return (ROOT if (ROOT / "pyproject.toml").is_file() else Path.cwd()) / "outputs"


def register_resolvers() -> None:
    """What `conf/config.yaml` asks of this module.

    `${poolwise.outputs:}`; `${poolwise.sweep:}`, the folder of the sweep that is running; `${poolwise.root:}`, where
    `experiments/` is: in that folder, which holds the settings as they were when the sweep began.
    """
    folder = os.environ.get(FROZEN)
    OmegaConf.register_new_resolver("poolwise.outputs", lambda: str(outputs()), replace=True)
    OmegaConf.register_new_resolver("poolwise.sweep", lambda: folder or str(outputs() / "sweeps"), replace=True)
    OmegaConf.register_new_resolver("poolwise.root", lambda: folder or str(ROOT), replace=True)
