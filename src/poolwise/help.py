"""Config files to the text of `--help`: every choice with its first comment line, and the families of priors.

The help templates in `conf/hydra/help` take both from resolvers. Nothing heavy is imported, so the families are named
here; a test holds them against `model.priors.FAMILIES`.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from textwrap import TextWrapper

from hydra import compose
from hydra._internal.utils import get_args_parser
from omegaconf import DictConfig, OmegaConf, open_dict

from poolwise.arguments import composing

HIDDEN = ("hydra/help",)  # groups that hold no choices of a user
ROOT_PROVIDER, IN_ROOT = "hydra.searchpath in main", "experiments/*.yaml"  # the checkout, which holds other files too
FAMILIES: dict[str, tuple[str, ...]] = {  # with their parameters
    "Exponential": ("rate",),
    "Gamma": ("concentration", "rate"),
    "HalfCauchy": ("scale",),
    "HalfNormal": ("scale",),
    "InverseGamma": ("concentration", "rate"),
    "LogNormal": ("loc", "scale"),
    "Normal": ("loc", "scale"),
    "Uniform": ("low", "high"),
    "Weibull": ("scale", "concentration"),
    "Beta": ("concentration1", "concentration0"),
    "TruncatedNormal": ("loc", "scale", "low", "high"),
}
WIDEST = 120  # characters of a line


def register() -> None:
    """Register the resolvers `${poolwise.choices:}` and `${poolwise.families:}`."""
    OmegaConf.register_new_resolver("poolwise.choices", _choices, replace=True)
    OmegaConf.register_new_resolver("poolwise.families", families, replace=True)


def shown(arguments: Sequence[str], config_name: str) -> bool:
    """Print the help of the composed config if the command line asks for it.

    Hydra would print the same, but takes most of its time for two lists of choices that the help does not contain.
    """
    asked = get_args_parser().parse_args(list(arguments))
    if not asked.help:
        return False
    with composing(asked.config_dir):
        composed = compose(asked.config_name or config_name, overrides=asked.overrides, return_hydra_config=True)
    template = Template(composed.hydra.help.template)
    with open_dict(composed):
        del composed["hydra"]
    print(template.substitute(CONFIG=OmegaConf.to_yaml(composed, resolve=asked.resolve)))
    return True


def choices(folders: Mapping[Path, str]) -> str:
    """Every config group with its choices, each with the first comment line of its file.

    Parameters
    ----------
    folders : with the pattern of the files in each; the first that has a choice describes it
    """
    found: dict[str, dict[str, str]] = {}
    for folder, pattern in folders.items():
        for path in sorted(folder.glob(pattern)):
            group = path.parent.relative_to(folder).as_posix()
            if group not in HIDDEN:
                found.setdefault(group, {}).setdefault(path.stem, first_comment(path))
    return "\n".join(line for group in sorted(found) for line in [group, *_entries(found[group])])


def families() -> str:
    """Every family of priors with its parameters."""
    return "\n".join(_entries({name: ", ".join(parameters) for name, parameters in FAMILIES.items()}))


def first_comment(path: Path) -> str:
    """The first comment line of a config file that is not a directive to Hydra."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return next((line[1:].strip() for line in lines if line.startswith("#") and "@package" not in line), "")


def _choices(*, _root_: DictConfig) -> str:
    """The choices in the search path of the command, which `--config-dir` extends."""
    sources = [source for source in _root_.hydra.runtime.config_sources if source.schema == "file"]
    folders = {Path(source.path): IN_ROOT if source.provider == ROOT_PROVIDER else "*/**/*.yaml" for source in sources}
    return choices(folders).replace("$", "$$")  # the text is a template


def _entries(told: Mapping[str, str]) -> list[str]:
    """Indented lines of names and their texts, wrapped to the terminal."""
    first = max(map(len, told))
    wrapped = TextWrapper(
        width=min(WIDEST, shutil.get_terminal_size().columns),
        subsequent_indent=" " * (first + 4),
        break_on_hyphens=False,
    )
    return [line for name, text in told.items() for line in wrapped.wrap(f"  {name:<{first}}  {text}")]
