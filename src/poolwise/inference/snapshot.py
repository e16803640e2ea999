"""The state of a sampler to named arrays and back, so a fit resumes to the same draws."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from poolwise.errors import FitError


@dataclass(frozen=True)
class Snapshot:
    """The state of all chains after a chunk.

    Attributes
    ----------
    steps : steps per chain so far, including the warm-up
    state : leaf of the sampler's state, named by its path -> (chain, ...); random keys as their uint32 data
    drawn : quantity -> (chain, draw, ...); empty in the warm-up
    seconds : spent sampling so far
    """

    steps: int
    state: dict[str, np.ndarray]
    drawn: dict[str, np.ndarray]
    seconds: float


def leaves_of(state: Any) -> dict[str, Any]:
    """The leaves of a sampler's state by path; random keys as their data."""
    return {
        jax.tree_util.keystr(path): jax.random.key_data(leaf) if _is_key(leaf) else leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }


def restored(leaves: Mapping[str, np.ndarray], shapes: Any) -> Any:
    """The inverse of `leaves_of`: the state of these shapes with the given leaves."""

    def put(path: Any, shape: jax.ShapeDtypeStruct) -> jax.Array:
        leaf = jnp.asarray(leaves[jax.tree_util.keystr(path)])
        return jax.random.wrap_key_data(leaf) if _is_key(shape) else leaf

    return jax.tree_util.tree_map_with_path(put, shapes)


def check(
    snapshot: Snapshot, state: Any, buffer: Mapping[str, jax.ShapeDtypeStruct], *, num_warmup: int, num_samples: int
) -> None:
    """Refuse a snapshot whose steps, names, shapes or dtypes differ from those of a fit.

    Parameters
    ----------
    state, buffer : shapes of the fit's state, and of the draws of a chunk, (chain, step, ...)

    Raises
    ------
    FitError
        naming the first that differs.
    """
    total, num_draws = num_warmup + num_samples, snapshot.steps - num_warmup
    drawn = {name: (leaf.shape[0], num_draws, *leaf.shape[2:]) for name, leaf in buffer.items() if num_draws > 0}
    wanted = {"steps": f"at most {total}"}
    wanted |= {f"state{name}": _kind(leaf) for name, leaf in jax.eval_shape(leaves_of, state).items()}
    wanted |= {name: f"{buffer[name].dtype} {shape}" for name, shape in drawn.items()}
    given = {"steps": wanted["steps"] if 0 <= snapshot.steps <= total else str(snapshot.steps)}
    given |= {f"state{name}": _kind(leaf) for name, leaf in snapshot.state.items()}
    given |= {name: _kind(leaf) for name, leaf in snapshot.drawn.items()}
    for name in [*given, *wanted]:
        if given.get(name) != wanted.get(name):
            raise FitError(
                f"this fit cannot resume from step {snapshot.steps}: {name} is {given.get(name, 'missing')} there and "
                f"{wanted.get(name, 'unknown')} here. Resume with the original settings, or start a new fit."
            )


def _kind(leaf: Any) -> str:
    return f"{leaf.dtype} {leaf.shape}"


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
