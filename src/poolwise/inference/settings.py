"""Settings of the sampler and the devices: the sections `sampler` and `device` of a config."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StrictBool
from pydantic.dataclasses import dataclass

Positive = Annotated[int, Field(strict=True, ge=1)]
SECTION = ConfigDict(extra="forbid", strict=False)  # a dict is accepted; each value is validated strictly


@dataclass(frozen=True, kw_only=True, config=SECTION)
class Sampler:
    """Settings of the sampler; see `conf/sampler`.

    Attributes
    ----------
    name : a key of `inference.engines.ENGINES`, which says which of the others it needs; 0 stands for none
    num_samples, num_chains : draws of a chain, and chains
    num_warmup : steps of a chain before
    target_accept : mean acceptance probability to which the warm-up adapts the step size
    checkpoint_every : steps between two checkpoints; changes no draw
    """

    num_samples: Annotated[
        int, Field(strict=True, ge=4)
    ]  # R-hat splits a chain in two and needs two draws of each half
    num_chains: Positive
    num_warmup: Annotated[int, Field(strict=True, ge=0)] = 0
    target_accept: Annotated[float, Field(strict=True, ge=0, lt=1)] = 0.0
    max_tree_depth: Annotated[int, Field(strict=True, ge=0, le=20)] = 0
    checkpoint_every: Annotated[int, Field(strict=True, ge=0)] = 0
    name: str = "nuts"


@dataclass(frozen=True, kw_only=True, config=SECTION)
class Device:
    """Settings of the devices; see `conf/device`.

    Attributes
    ----------
    num_devices : None for as many as are useful
    chain_method : whether the chains of a device run in sequence (`map`) or side by side (`vmap`)
    """

    platform: Literal["cpu", "gpu"]
    num_devices: Positive | None
    chain_method: Literal["map", "vmap"]
    x64: StrictBool
