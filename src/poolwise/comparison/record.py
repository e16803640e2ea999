"""A comparison as the record of a run: its parameters, metrics and tags."""

import math

from poolwise.comparison.ranking import Comparison
from poolwise.tracking import store
from poolwise.tracking.record import Record
from poolwise.tracking.run import PARAM_LIMIT, TAG_LIMIT

MEMBERS = "members"  # tag: the ids of the compared runs
ID_LENGTH = 32  # of a run id
RANKS = 50  # that have metrics of their own; tables/comparison.csv has all
BY_RANK = ("elpd_diff", "dse", "diff_mcse", "p_worse")  # columns that are metrics, as in `elpd_diff/2` of the second


def record(found: Comparison, *, experiment: str, data_sha256: str) -> Record:
    """The record of a comparison.

    Its parameters are the keys that distinguish the models, each with its values in the order of the ranking, and the
    best model and run. No metric has the name of a fit's, so that a comparison is not ranked among fits.
    """
    members = list(found.runs["run_id"])
    return Record(
        name=f"compare {len(members)} runs",
        experiment=experiment,
        params=_params(found),
        metrics=_metrics(found),
        tags={
            store.KIND: "comparison",
            MEMBERS: ",".join(members[: TAG_LIMIT // (ID_LENGTH + 1)]),
            "data_sha256": data_sha256,
            "mlflow.source.name": "poolwise.compare",
        },
    )


def _params(found: Comparison) -> dict[str, str]:
    best = found.table["name"][found.table["run_id"] == found.best]
    swept = {key: ", ".join(dict.fromkeys(found.table[key].replace("", "-"))) for key in found.labels}
    chosen = {"best_model": best.iloc[0] if len(best) else "none", "best_run": found.best or "none"}
    return {key: value[:PARAM_LIMIT] for key, value in (chosen | swept).items()}


def _metrics(found: Comparison) -> dict[str, float]:
    counted = {"num_models": len(found.table), "num_runs": len(found.runs), "num_rows": found.num_rows}
    by_rank = {
        f"{name}/{rank}": float(value)
        for name in BY_RANK
        for rank, value in zip(found.table["rank"].head(RANKS), found.table[name], strict=False)
        if math.isfinite(value)
    }
    return counted | by_rank
