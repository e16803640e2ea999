"""Posterior draws to what the model says of counts: those seen, those repeated, those of a new group.

Counts are simulated with NumPy from the stored rates: a twentieth of the cost of running the model again.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr
from scipy import special

from poolwise.model import Model, log_likelihood
from poolwise.priors import distribution
from poolwise.special import concentration_of

# a stream each: a new step moves no other draw
STREAMS = {"posterior_predictive": 1, "new_group": 2, "groups_left_out": 3, "prior": 4}
BLOCK = 2**24  # values held at once: 128 MiB in float64
REPLICATED = 5_000_000  # simulated counts of a predictive check at most, but for 20 draws of every row
TABLE_ROWS = 1000
NEARLY_POISSON = 1e8  # concentration from which on the distribution function is the Poisson's, to 1e-8

_log_likelihood = jax.jit(log_likelihood)


@dataclass(frozen=True)
class NewGroup:
    """What a group will produce: one that is not in the data or, with a `label`, one that is.

    Attributes
    ----------
    rate : (S,), draws of its rate, counts per unit of exposure
    mean, sd : of a count at `exposure`
    table : `count`, `probability` (of a count above the row before and up to this one), `cumulative`
    learnt : False where the data say nothing of a new group (unpooled): then `rate` is drawn from the prior
    above : (k, P(y > k)) of a count at `exposure`
    label : of the group in the data; None for a new one
    """

    rate: np.ndarray
    exposure: float
    mean: float
    sd: float
    table: pd.DataFrame
    learnt: bool
    above: tuple[tuple[int, float], ...] = ()
    label: str | None = None


def generator(seed: int, stream: str) -> np.random.Generator:
    """The random numbers of one named step."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(STREAMS[stream],)))


def pointwise_log_likelihood(posterior: xr.Dataset, cells: xr.Dataset) -> Iterator[np.ndarray]:
    """Log probability of one row of each cell under each draw, in blocks (cell, chain, draw).

    Parameters
    ----------
    cells : the `constant_data` of `tree.to_tree`
    """
    lam, concentration = _rates(posterior), _concentration(posterior)
    group, exposure, count = (cells[f"cell_{name}"].values for name in ("group", "exposure", "count"))
    size = max(1, BLOCK // lam[0].size)
    for begin in range(0, len(count), size):
        one = slice(begin, begin + size)
        rate = exposure[one, None, None] * (lam[group[one]] if len(lam) > 1 else lam)
        yield np.asarray(_log_likelihood(count[one, None, None].astype(float), rate, concentration))


def evenly_spaced(length: int, num: int) -> np.ndarray:
    """Indices of about `num` of `length` draws of a chain."""
    return np.linspace(0, length - 1, min(length, num)).round().astype(int)


def pointwise_log_below(posterior: xr.Dataset, cells: xr.Dataset, *, draws: np.ndarray) -> Iterator[np.ndarray]:
    """Log P(Y < count of the cell) of a row like its own under some draws, in blocks (cell, chain, draw).

    Blocks are of the same cells as those of `pointwise_log_likelihood`. A distribution function varies little between
    draws and is slow to compute: of 16000, 4000 leave a probability an error below 0.001 (cookies).

    Parameters
    ----------
    draws : indices along `draw`, the same in every chain, such as `evenly_spaced(4000, 1000)`
    """
    lam, concentration = _rates(posterior)[..., draws], _concentration(posterior)
    phi = None if concentration is None else concentration[..., draws]
    group, exposure, count = (cells[f"cell_{name}"].values for name in ("group", "exposure", "count"))
    size = max(1, BLOCK // (posterior.sizes["chain"] * posterior.sizes["draw"]))
    for begin in range(0, len(count), size):
        one = slice(begin, begin + size)
        rate = exposure[one, None, None] * (lam[group[one]] if len(lam) > 1 else lam)
        below = _below(count[one, None, None].astype(float), rate, phi)
        with np.errstate(divide="ignore"):  # nothing lies below 0
            yield np.log(below)


def _below(count: np.ndarray, rate: np.ndarray, phi: np.ndarray | None) -> np.ndarray:
    """P(Y < count), by incomplete gamma and beta functions; 0 for a count of 0."""
    if phi is None:
        return special.gammaincc(count, rate) * (count > 0)
    finite = np.minimum(phi, NEARLY_POISSON)
    below = special.betainc(finite, np.maximum(count, 1.0), finite / (finite + rate))
    return np.where(phi < NEARLY_POISSON, below, special.gammaincc(count, rate)) * (count > 0)


def posterior_predictive(
    posterior: xr.Dataset, rows: xr.Dataset, *, num_draws: int, rng: np.random.Generator
) -> xr.Dataset:
    """Counts that the model would produce again: `y` (chain, draw, row), evenly spaced draws of each chain.

    For large tables fewer draws are taken, at least 20 in all.
    """
    num_chains, length = posterior.sizes["chain"], posterior.sizes["draw"]
    num_draws = min(num_draws, max(20, REPLICATED // rows.sizes["row"]))
    per_chain = -(-num_draws // num_chains)
    kept = posterior.isel(draw=evenly_spaced(length, per_chain))
    lam, concentration = _rates(kept), _concentration(kept)
    group = rows["row_group"].values if len(lam) > 1 else np.zeros(rows.sizes["row"], int)
    rate = np.moveaxis(lam[group], 0, -1) * rows["row_exposure"].values  # (chain, draw, row)
    spread = None if concentration is None else concentration[..., None]
    y = _simulate(rate, spread, rng)
    dims = ("chain", "draw", "row")
    return xr.Dataset({"y": (dims, y)}, coords={"chain": kept["chain"].values, "draw": kept["draw"].values})


def new_group(
    model: Model,
    posterior: xr.Dataset,
    values: Mapping[str, Mapping[str, np.ndarray]],
    *,
    exposure: float,
    seed: int,
    above: Sequence[int] = (),
    label: str | None = None,
) -> NewGroup:
    """Rate and count of a group, one draw of its rate per posterior draw.

    Of a new group, pooled: the common rate; hierarchical: Gamma(alpha, beta); unpooled: the prior, for lack of anything
    else. Of a group of the data, by its label: its own rate.
    """
    rng = generator(seed, "new_group")
    flat = {str(name): value.values.reshape(-1) for name, value in posterior.items() if value.ndim == 2}
    num_draws = posterior.sizes["chain"] * posterior.sizes["draw"]
    if model.pooling == "pooled":
        rate = flat["lam"]
    elif label is not None:
        rate = _rates(posterior)[list(posterior["group"].values).index(label)].reshape(-1)
    elif model.pooling == "hierarchical":
        rate = flat["mu"] * _mean_one_gamma(flat["alpha"], rng)
    else:
        key = jax.random.fold_in(jax.random.key(seed), STREAMS["new_group"])
        rate = np.asarray(distribution(dict(model.families)["lam"], values["lam"]).sample(key, (num_draws,)))
    mean, phi = exposure * rate, flat.get("phi")
    first, square = mean, mean**2
    if model.pooling == "hierarchical" and label is None:  # moments given mu and sigma: less noise than of one draw
        first, square = exposure * flat["mu"], exposure**2 * (flat["mu"] ** 2 + flat["sigma"] ** 2)
    noise = first if phi is None else first + square / phi
    return NewGroup(
        rate=rate,
        exposure=exposure,
        mean=float(first.mean()),
        sd=float(np.sqrt(square.mean() - first.mean() ** 2 + noise.mean())),
        table=_count_table(mean, phi, rng),
        learnt=model.pooling != "unpooled" or label is not None,
        above=tuple((k, float(1.0 - _below(np.array(k + 1.0), mean, phi).mean())) for k in above),
        label=label,
    )


def prior(
    model: Model,
    values: Mapping[str, Mapping[str, np.ndarray]],
    cells: xr.Dataset,
    *,
    num_draws: int,
    seed: int,
) -> tuple[xr.Dataset, xr.Dataset]:
    """What the model takes for possible before it sees a count: its parameters, and a count of one row of each cell.

    Sites (chain, draw) or (chain, draw, group), one chain, and `y` (chain, draw, cell). For many cells fewer draws are
    taken, at least 20; rates above 2**53, the largest count there may be, are taken for that.
    """
    rng, key = generator(seed, "prior"), jax.random.fold_in(jax.random.key(seed), STREAMS["prior"])
    num_groups = cells.sizes["group"]
    num_draws = min(num_draws, max(20, REPLICATED // max(cells.sizes["cell"], num_groups)))
    drawn = {}
    for i, (site, family) in enumerate(model.families):
        shape = (1, num_draws, num_groups) if (site, model.pooling) == ("lam", "unpooled") else (1, num_draws)
        drawn[site] = np.asarray(distribution(family, values[site]).sample(jax.random.fold_in(key, i), shape))
    if model.pooling == "hierarchical":
        mu, sigma = drawn["mu"][..., None], drawn["sigma"][..., None]
        shape_of_rates = np.clip((mu / sigma) ** 2, np.finfo(float).tiny, None)
        drawn["lam"] = mu * _mean_one_gamma(np.broadcast_to(shape_of_rates, (1, num_draws, num_groups)), rng)
    lam = drawn["lam"][..., None] if model.pooling == "pooled" else drawn["lam"][..., cells["cell_group"].values]
    rate = np.minimum(lam * cells["cell_exposure"].values, 2.0**53)  # (1, draw, cell)
    phi = np.asarray(concentration_of(jnp.asarray(drawn["delta"]))) if "delta" in drawn else None
    y = _simulate(rate, None if phi is None else phi[..., None], rng)
    dims = ("chain", "draw", "group")
    sites = {name: (dims[: each.ndim], each) for name, each in drawn.items()}
    coords = {"chain": [0], "draw": np.arange(num_draws)}
    parameters = xr.Dataset(sites, coords=coords | {"group": cells["group"].values})
    return parameters, xr.Dataset({"y": (("chain", "draw", "cell"), y)}, coords=coords)


def _count_table(mean: np.ndarray, phi: np.ndarray | None, rng: np.random.Generator) -> pd.DataFrame:
    """Distribution of a count with uncertain mean (S,), up to its 99.95% point."""
    simulated = _simulate(mean, phi, rng)
    top = int(np.quantile(simulated, 0.9995))
    count = np.unique(np.linspace(0, top, min(top + 1, TABLE_ROWS)).round().astype(int))
    if top < TABLE_ROWS:  # the conditional probabilities averaged: smoother than counting draws
        probability = np.array([np.exp(_log_likelihood(float(k), mean, phi)).mean() for k in count])
    else:
        probability = np.diff(np.searchsorted(np.sort(simulated), count, side="right"), prepend=0) / mean.size
    return pd.DataFrame({"count": count, "probability": probability, "cumulative": probability.cumsum()})


def _simulate(rate: np.ndarray, phi: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    if phi is not None:
        rate = rate * _mean_one_gamma(np.broadcast_to(phi, rate.shape), rng)
    return rng.poisson(np.minimum(rate, 2.0**62))  # NumPy's own limit is a little above


def _mean_one_gamma(shape: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gamma draws with mean 1 and variance 1 / shape; 1 where the shape is infinite."""
    finite = np.minimum(shape, 1e30)
    return rng.standard_gamma(finite) / finite


def _rates(posterior: xr.Dataset) -> np.ndarray:
    """(G, chain, draw), or (1, chain, draw) for a pooled model."""
    lam = posterior["lam"]
    return lam.transpose("group", "chain", "draw").values if "group" in lam.dims else lam.values[None]


def _concentration(posterior: xr.Dataset) -> np.ndarray | None:
    return posterior["phi"].values if "phi" in posterior else None
