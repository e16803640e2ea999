"""How to sample, and what to compute on: the sections `sampler` and `device` of a config."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

Positive = Annotated[int, Field(ge=1)]
STRICT = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Sampler:
    """How long and how carefully to sample; see `conf/sampler`.

    Attributes
    ----------
    name : a key of `inference.engines.ENGINES`
    num_warmup, num_samples : steps of a chain
    target_accept : mean acceptance probability that the warm-up adapts the step size to
    checkpoint_every : steps between two savings; changes no draw
    """

    num_warmup: Positive
    num_samples: Annotated[int, Field(ge=4)]  # R-hat splits a chain in two and needs two draws of each half
    num_chains: Positive
    target_accept: Annotated[float, Field(gt=0, lt=1)]
    max_tree_depth: Annotated[int, Field(ge=1, le=20)]
    checkpoint_every: Positive
    name: str = "nuts"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Device:
    """What to compute on; see `conf/device`.

    Attributes
    ----------
    num_devices : None for as many as serve
    chain_method : whether the chains of a device follow one another (`map`) or run side by side (`vmap`)
    """

    platform: Literal["cpu", "gpu"]
    num_devices: Positive | None
    chain_method: Literal["map", "vmap"]
    x64: bool
