"""Name, metrics and tags of a run from its judged fit."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from poolwise.text import one_line

if TYPE_CHECKING:
    from poolwise.checks.base import FitView
    from poolwise.model.count_model import Model

# overrides that do not distinguish models, and so are left out of a run's name
UNTOLD = (
    *("pooling=", "likelihood=", "data", "device", "tracking", "hydra"),
    *("checks", "plots", "experiments", "sweep.", "reuse", "sampler.checkpoint_every"),
)
# logged before the fit: MLflow's UI shows tags in the order in which a run first got them, and its page that compares
# runs opens with the first metric
UNKNOWN_METRICS = {"elpd_loo": math.nan}
UNKNOWN_TAGS = {
    **{"verdict": "not judged", "verdict_reasons": "the fit has not ended"},
    **{"model_check": "not checked", "model_check_reasons": "the fit has not ended"},
}
NAME_LIMIT = 200  # characters of a parameter's name; MLflow allows 250 for a metric
PARAMETERS_SHOWN = 50  # as metrics; tables/summary.csv has all


def run_name(model: "Model", overrides: Sequence[str]) -> str:
    """A short name: the model first, as in `hier-nb`, then what differs from the defaults."""
    told = [each.lstrip("+") for each in overrides if not each.startswith("~")]
    told = [each for each in told if not each.startswith(UNTOLD) or each.startswith("data.covariates")]
    return one_line(" ".join([f"{model.pooling.short}-{model.likelihood.short}", *map(_shortened, told)]))


def metrics(view: "FitView", *, seconds: Mapping[str, float], total: float) -> dict[str, float]:
    """Headline metrics, metrics of each check, of each parameter, and seconds of every stage."""
    verdict, loo, new = view.verdict, view.loo, view.new_group
    headline = {
        "elpd_loo": loo.elpd,
        "elpd_loo_se": loo.se,
        "elpd_loo_mcse": loo.mcse,
        "p_loo": loo.p_loo,
        "pareto_k_max": verdict.pareto_k_max,
        "pareto_k_bad": verdict.pareto_k_bad,
        "r_hat_max": verdict.r_hat_max,
        "ess_bulk_min": verdict.ess_bulk_min,
        "ess_tail_min": verdict.ess_tail_min,
        **verdict.engine,
        **({"ess_per_second": verdict.ess_bulk_min / seconds["sample"]} if "sample" in seconds else {}),
        "seconds_total": total,
        "loo_replaced": view.counts.num_rows if loo.psis else 0,  # rows with elpd from integrated importance sampling
        "loo_refitted": loo.refitted_rows,
        "pareto_k_max_psis": loo.k_max_psis,
    }
    for result in view.results.values():
        headline |= {"/".join(map(metric_name, name.split("/", 1))): each for name, each in result.metrics.items()}
    group = "group" if new.label is not None else "new_group"
    headline |= {f"{group}/mean": new.mean, f"{group}/sd": new.sd}
    headline |= {f"{group}/above_{k}": probability for k, probability in new.above}
    by_parameter = parameter_metrics(view.summary)
    return headline | by_parameter | {f"seconds/{stage}": each for stage, each in seconds.items()}


def tags(view: "FitView") -> dict[str, str]:
    """Tags of the checks besides the gate, and the predicted group."""
    found = {name: value for result in view.results.values() for name, value in result.tags.items()}
    label = view.new_group.label
    return found if label is None else found | {"predicted_group": label}


def unchecked(view: "FitView") -> list[str]:
    """Why the model check of a fit that does not fail it is in doubt, if it is."""
    doubt = view.model_check.doubt
    return [f"{doubt}: {'; '.join(view.verdict.reasons)}"] if doubt else []


def parameter_metrics(summary: pd.DataFrame) -> dict[str, float]:
    """`mean/<p>`, `sd/<p>`, `r_hat/<p>`, `ess_bulk/<p>` of the parameters that have a mean."""
    shown = summary.dropna(subset=["mean"]).head(PARAMETERS_SHOWN)
    names = _distinct([metric_name(str(name))[:NAME_LIMIT] for name in shown.index])
    return {
        f"{column}/{name}": float(value)
        for column in ("mean", "sd", "r_hat", "ess_bulk")
        for name, value in zip(names, shown[column], strict=True)
    }


def metric_name(name: str) -> str:
    """The name with characters that MLflow refuses, and slashes, which group metrics, replaced by `_`."""
    return re.sub(r"[^\w.\- :]", "_", name)


def _shortened(override: str) -> str:
    """`prior.sigma.rate=2` as `sigma.rate=2`, `sampler=quick` as `quick`; numbers to four digits."""
    key, _, value = override.partition("=")
    if re.fullmatch(r"-?\d+\.\d{5,}", value):  # as proposed by a search
        value = f"{float(value):.4g}"
    if "." not in key:
        return f"{key.rpartition('/')[2]}={value}" if "/" in key or key == "seed" else value
    return f"{key.partition('.')[2]}={value}"


def _distinct(names: list[str]) -> list[str]:
    """The names, numbered if two labels became equal."""
    taken = set[str]()
    for i, name in enumerate(names):
        free = name if name not in taken else f"{name}_{i}"
        while free in taken or (free != name and free in names):
            free += "_"
        taken.add(free)
        names = [*names[:i], free, *names[i + 1 :]]
    return names
