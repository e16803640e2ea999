"""Posterior draws to predictions of counts: observed rows, replicated tables, a new group.

NumPy simulates counts from the stored rates, at a twentieth of the cost of running the model again.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import jax
import numpy as np
import pandas as pd
import xarray as xr
from numpyro import handlers

from poolwise.counts.cells import run_starts
from poolwise.inference.datatree import joint
from poolwise.inference.rates import evenly_spaced, law_of_rate
from poolwise.inference.streams import named_generator, named_key
from poolwise.inference.tables import LARGEST, simulate_by_count
from poolwise.model import effects
from poolwise.model.count_model import Model
from poolwise.model.likelihoods.base import Likelihood, Params
from poolwise.model.priors import PriorValues, prior_moments
from poolwise.model.special import positive

BLOCK = 2**24  # values held at once: 128 MiB in float64
REPLICATED = 5_000_000  # most simulated counts of a predictive check, except that every row has 20 draws
MOST_DRAWS = 1000  # of an expected value by stratum
TABLE_ROWS = 1000  # of the counts of a new group; larger counts are at these levels of their distribution:
LEVELS = np.append(np.arange(1, 200) / 200, 0.9995)


@dataclass(frozen=True)
class NewGroup:
    """The prediction for a new group or, with a `label`, for a group of the data.

    Attributes
    ----------
    rate : (S,), draws of its rate, counts per unit of exposure
    mean, sd : of a count at `exposure`; NaN if they do not exist
    table : `count`, `probability` (of a count above the row before and up to this one), `cumulative`
    is_informed_by_data : False if the data do not inform a new group; `rate` is then drawn from the prior
    above : (k, P(y > k)) of a count at `exposure`
    label : of the group in the data; None for a new one
    source : a remark on the source of the prediction, if the data do not inform a new group
    """

    rate: np.ndarray
    exposure: float
    mean: float
    sd: float
    table: pd.DataFrame
    is_informed_by_data: bool
    above: tuple[tuple[int, float], ...] = ()
    label: str | None = None
    source: str = ""


def pointwise_log_likelihood(likelihood: Likelihood, posterior: xr.Dataset, cells: xr.Dataset) -> Iterator[np.ndarray]:
    """Log probability of one row of each cell under each draw, in blocks (cell, chain, draw).

    Parameters
    ----------
    cells : the `constant_data` of `datatree.to_tree`
    """
    log_prob, params = log_prob_of(likelihood), likelihood.params_of(_arrays(posterior))
    for count, rate, exposure in _blocks(posterior, cells):
        yield np.asarray(log_prob(count, rate, likelihood.at(params, exposure)))


def pointwise_log_below(likelihood: Likelihood, posterior: xr.Dataset, cells: xr.Dataset) -> Iterator[np.ndarray]:
    """Log P(Y < count of the cell) of one row of each cell under each draw, in blocks (cell, chain, draw).

    Blocks have the same cells as those of `pointwise_log_likelihood`. A distribution function varies little between
    draws and is slow to compute: 4000 of 16000 draws give an error below 0.001 in probability (cookies).
    """
    params = likelihood.params_of(_arrays(posterior))
    for count, rate, exposure in _blocks(posterior, cells):
        with np.errstate(divide="ignore"):  # P(Y < 0) = 0
            yield np.log(likelihood.below(count, rate, likelihood.at(params, exposure)))


def posterior_predictive(
    model: Model, posterior: xr.Dataset, rows: xr.Dataset, *, num_draws: int, rng: np.random.Generator
) -> xr.Dataset:
    """Replicated counts: `y` (chain, draw, row), at evenly spaced draws of each chain.

    Large tables use fewer draws, at least 20 in total. Where only the cells are known, the tables are those of
    `tables.simulate_by_count`.
    """
    posterior, unit = joint(posterior), "row" if "row" in rows.dims else "cell"
    num_chains, length = posterior.sizes["chain"], posterior.sizes["draw"]
    num_draws = min(num_draws, max(20, REPLICATED // rows.sizes[unit]))
    per_chain = -(-num_draws // num_chains)
    draws = posterior.isel(draw=evenly_spaced(length, per_chain))
    if unit == "row":
        return replicated(model.likelihood, draws, rows, rng)
    given = _arrays(draws)
    params, factor = model.likelihood.params_of(given), factors_of(given, rows, "cell")
    return simulate_by_count(model.likelihood, _rates(draws), params, rows, rng, factor)


def replicated(likelihood: Likelihood, draws: xr.Dataset, rows: xr.Dataset, rng: np.random.Generator) -> xr.Dataset:
    """A count of every row at every draw: `y` (chain, draw, row); rates are clipped at 2**53, the largest count.

    Parameters
    ----------
    draws : the rates and the parameters of the likelihood, from posterior or prior
    rows : the `constant_data` of `datatree.to_tree`
    """
    lam, given = _rates(draws), _arrays(draws)
    group = rows["row_group"].values if len(lam) > 1 else np.zeros(rows.sizes["row"], int)
    size = rows["row_exposure"].values * factors_of(given, rows, "row")
    rate = np.minimum(np.moveaxis(lam[group], 0, -1) * size, LARGEST)  # (chain, draw, row)
    params = {name: each[..., None] for name, each in likelihood.params_of(given).items()}
    y = likelihood.sample(rate, likelihood.at(params, rows["row_exposure"].values), rng)
    return xr.Dataset(
        {"y": (("chain", "draw", "row"), y)}, coords={name: draws[name].values for name in ("chain", "draw")}
    )


def new_group(
    model: Model,
    posterior: xr.Dataset,
    values: PriorValues,
    *,
    exposure: float,
    seed: int,
    above: Sequence[int] = (),
    label: str | None = None,
    x: Sequence[float] = (),
) -> NewGroup:
    """Rate and count of a group, one draw of its rate per posterior draw.

    A new group has the rate that the pooling gives it; a group of the data, named by its label, has its own rate.

    Parameters
    ----------
    x : its row of the design matrix (P,); if not given, of the mean of each number and the reference level of each text
    """
    rng = named_generator(seed, "new_group")
    draws = draws_of(model, posterior if label is None else joint(posterior))
    if label is None or model.pooling.is_shared:
        rate = model.pooling.new_rates(draws, dict(model.families), values, rng)
        first, square = model.pooling.new_rate_moments(draws, rate)
    else:
        rate = draws["lam"][:, list(posterior["group"].values).index(label)]
        first, square = rate, rate**2
    if any(x):
        factor = effects.factors(model.effects, draws, np.array([x]))[:, 0]
        rate, first, square = rate * factor, first * factor, square * factor**2
    params = model.likelihood.at(model.likelihood.params_of(draws), exposure)
    moments = model.likelihood.moments(exposure * first, exposure**2 * square, params)
    mean, mean_square = moments or model.likelihood.moments_at(exposure * rate, params)
    is_informed = model.pooling.informs_new_group or label is not None
    has_mean, has_sd = (True, True) if is_informed else prior_moments(dict(model.families)["lam"], values["lam"])
    return NewGroup(
        rate=rate,
        exposure=exposure,
        mean=float(mean.mean()) if has_mean else float("nan"),
        sd=float(np.sqrt(mean_square.mean() - mean.mean() ** 2)) if has_sd else float("nan"),
        table=_count_table(model, exposure * rate, params, rng),
        is_informed_by_data=is_informed,
        above=tuple(
            (k, float(1.0 - model.likelihood.below(np.array(k + 1.0), exposure * rate, params).mean())) for k in above
        ),
        label=label,
        source=model.pooling.new_group_words.source if label is None else "",
    )


@dataclass(frozen=True)
class Strata:
    """The rows of one group, exposure and row of the design matrix, at S draws.

    Attributes
    ----------
    group, rows : (T,), index into the labels; number of rows
    rate : (S, T)
    params : of the likelihood at the exposures, each broadcasts to (S, T)
    """

    group: np.ndarray
    rows: np.ndarray
    rate: np.ndarray
    params: Params


def by_stratum(model: Model, posterior: xr.Dataset, cells: xr.Dataset) -> Strata:
    """All strata at evenly spaced draws: at most `MOST_DRAWS`, fewer of many strata, at least 20."""
    group, exposure, rows = (cells[f"cell_{name}"].values for name in ("group", "exposure", "multiplicity"))
    first = run_starts(group, exposure, *design_of(cells, "cell").T)
    rows, group, exposure = np.add.reduceat(rows, first), group[first], exposure[first]
    posterior = joint(posterior)
    num_draws = min(max(REPLICATED // len(first), 20), MOST_DRAWS)
    some = evenly_spaced(posterior.sizes["draw"], -(-num_draws // posterior.sizes["chain"]))
    draws = draws_of(model, posterior.isel(draw=some))
    lam = draws["lam"][:, None] if model.pooling.is_shared else draws["lam"][:, group]
    params = {name: each[:, None] for name, each in model.likelihood.params_of(draws).items()}
    factor = factors_of(draws, cells.isel(cell=first), "cell")
    return Strata(group, rows, lam * exposure * factor, model.likelihood.at(params, exposure))


def draws_of(model: Model, posterior: xr.Dataset) -> dict[str, np.ndarray]:
    """Site -> draws (S,), or (S, G) for rates that differ by group."""
    flat = {name: each.reshape(each.shape[0] * each.shape[1], -1) for name, each in _arrays(posterior).items()}
    draws = {name: each[:, 0] if each.shape[1] == 1 and name != "lam" else each for name, each in flat.items()}
    if model.pooling.is_shared:
        draws["lam"] = draws["lam"][:, 0]
    return draws


def prior(
    model: Model,
    values: PriorValues,
    cells: xr.Dataset,
    *,
    num_draws: int,
    seed: int,
) -> tuple[xr.Dataset, xr.Dataset]:
    """Prior predictive draws: the parameters, and a count of one row of each cell.

    Sites (chain, draw) or (chain, draw, group), one chain, and `y` (chain, draw, cell). Many cells use fewer draws, at
    least 20; rates are clipped at 2**53, the largest possible count.
    """
    num_groups = cells.sizes["group"]
    num_draws = min(num_draws, max(20, REPLICATED // max(cells.sizes["cell"], num_groups)))
    groups_of_program = 1 if model.integrates_rates else num_groups
    drawn = _prior_program(model, num_draws, groups_of_program)(named_key(seed, "prior"), values)
    sites = {name: np.asarray(each) for name, each in drawn.items()}
    if model.integrates_rates:  # by NumPy, which is faster; and one program serves any number of groups
        law = {name: each[:, None] for name, each in law_of_rate(model, values, sites, num_draws).items()}
        rng = named_generator(seed, "prior_rates")
        sites["lam"] = positive(model.pooling.mixing.sample(law, (num_draws, num_groups), rng))
    sites = {name: each[None] for name, each in sites.items()}
    lam = sites["lam"][..., None] if model.pooling.is_shared else sites["lam"][..., cells["cell_group"].values]
    size = cells["cell_exposure"].values * factors_of(sites, cells, "cell")
    rate = np.minimum(lam * size, LARGEST)  # (1, draw, cell)
    params = {name: each[..., None] for name, each in model.likelihood.params_of(sites).items()}
    at_rows = model.likelihood.at(params, cells["cell_exposure"].values)
    y = model.likelihood.sample(rate, at_rows, named_generator(seed, "prior_predictive"))
    dims = ("chain", "draw", "group")
    top = {name: (dims[: each.ndim], each) for name, each in sites.items() if name in (*model.sites, "lam")}
    coords = {"chain": [0], "draw": np.arange(num_draws)}
    parameters = xr.Dataset(top, coords=coords | {"group": cells["group"].values})
    return parameters, xr.Dataset({"y": (("chain", "draw", "cell"), y)}, coords=coords)


@functools.lru_cache(maxsize=16)
def _prior_program(model: Model, num_draws: int, num_groups: int) -> Callable:
    """The compiled `draw(key, values)`: sites and derived sites, (D,) or (D, G)."""

    def one(key: jax.Array, values: PriorValues) -> dict[str, jax.Array]:
        sites = handlers.trace(handlers.seed(model.parameters, key)).get_trace(values, num_groups)
        return {name: site["value"] for name, site in sites.items() if site["type"] != "plate"}

    return jax.jit(lambda key, values: jax.vmap(one, (0, None))(jax.random.split(key, num_draws), values))


def _count_table(model: Model, rate: np.ndarray, params: Params, rng: np.random.Generator) -> pd.DataFrame:
    """Distribution of a count with uncertain rate (S,), up to its 99.95% quantile: every count, or its quantiles."""
    simulated = np.sort(model.likelihood.sample(rate, params, rng))
    top = int(np.quantile(simulated, LEVELS[-1]))
    if top < TABLE_ROWS:  # the conditional probabilities averaged: smoother than counting draws
        count, log_prob = np.arange(top + 1), log_prob_of(model.likelihood)
        probability = np.array([np.exp(log_prob(float(k), rate, params)).mean() for k in count])
        return pd.DataFrame({"count": count, "probability": probability, "cumulative": probability.cumsum()})
    count = np.unique(np.quantile(simulated, LEVELS, method="inverted_cdf"))
    cumulative = np.searchsorted(simulated, count, side="right") / rate.size
    return pd.DataFrame({"count": count, "probability": np.diff(cumulative, prepend=0.0), "cumulative": cumulative})


@functools.lru_cache(maxsize=16)
def log_prob_of(likelihood: Likelihood) -> Callable:
    """The compiled log probability of single counts."""
    return jax.jit(likelihood.log_prob)


def _blocks(posterior: xr.Dataset, cells: xr.Dataset) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Count (cell, 1, 1), rate (cell, chain, draw) and exposure (cell, 1, 1) of a row of each cell, in blocks."""
    lam, given = _rates(posterior), _arrays(posterior)
    group, exposure, count = (cells[f"cell_{name}"].values for name in ("group", "exposure", "count"))
    size = max(1, BLOCK // lam[0].size)
    for begin in range(0, len(count), size):
        one = slice(begin, begin + size)
        of_row, factor = exposure[one, None, None], factors_of(given, cells.isel(cell=one), "cell")
        exposed = of_row * (np.moveaxis(factor, -1, 0) if isinstance(factor, np.ndarray) else factor)
        yield count[one, None, None].astype(float), exposed * (lam[group[one]] if len(lam) > 1 else lam), of_row


def design_of(data: xr.Dataset, unit: str) -> np.ndarray:
    """The design matrix by "row" or "cell", (N, P); (0, 0) without covariates."""
    return data[f"{unit}_x"].values if "effect" in data.dims else np.zeros((0, 0))


def factors_of(draws: Mapping[str, np.ndarray], data: xr.Dataset, unit: str) -> np.ndarray | float:
    """exp(x beta) of each "row" or "cell" at the draws, (..., N); 1 without covariates.

    Parameters
    ----------
    data : the `constant_data` of `datatree.to_tree`
    """
    if "effect" not in data.dims:
        return 1.0
    return effects.factors(data["effect"].values, draws, design_of(data, unit))


def factor_at(model: Model, posterior: xr.Dataset, x: Sequence[float]) -> xr.DataArray:
    """exp(x beta) at the draws, (chain, draw), of one row of the design matrix (P,)."""
    some = posterior[[site for site in posterior.data_vars if site in model.sites]].drop_vars("lam", errors="ignore")
    factor = effects.factors(model.effects, _arrays(some), np.array([x]))[..., 0]
    return xr.DataArray(factor, coords={name: posterior[name].values for name in ("chain", "draw")})


def _arrays(dataset: xr.Dataset) -> dict[str, np.ndarray]:
    """Site -> draws (chain, draw[, group])."""
    at_draws = {str(name): each for name, each in dataset.data_vars.items() if "draw" in each.dims}
    return {name: each.transpose("chain", "draw", ...).values for name, each in at_draws.items()}


def _rates(posterior: xr.Dataset) -> np.ndarray:
    """(G, chain, draw), or (1, chain, draw) for a pooled model."""
    lam = posterior["lam"]
    return lam.transpose("group", "chain", "draw").values if "group" in lam.dims else lam.values[None]
