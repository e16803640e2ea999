"""A comparison as the record of a run: its parameters, metrics and tags."""

import math
from collections.abc import Sequence

from poolwise.comparison.ranking import Comparison
from poolwise.provenance.fingerprints import SOURCE, fingerprint, source_digest
from poolwise.tracking import store
from poolwise.tracking.record import Record
from poolwise.tracking.run import PARAM_LIMIT, TAG_LIMIT

MEMBERS = "members"  # tag: the ids of the compared runs
FINGERPRINT = "comparison_fingerprint"  # tag: of the compared runs, those left out and the code
RANKS = 50  # that have metrics of their own; tables/comparison.csv has all
BY_RANK = ("elpd_diff", "dse", "diff_mcse", "p_worse")  # columns that are metrics, as in `elpd_diff/2` of the second


def record(found: Comparison, *, experiment: str, data_sha256: str, left_out: Sequence[str] = ()) -> Record:
    """The record of a comparison.

    Its parameters are the keys that distinguish the models, each with its values in the order of the ranking, and the
    best model and run. No metric has the name of a fit's, so that a comparison is not ranked among fits.

    Parameters
    ----------
    left_out : why runs that were named are not in it
    """
    members = list(found.runs["run_id"])
    deciding = {"members": sorted(members), "left_out": sorted(left_out), "all_source": source_digest(SOURCE)}
    return Record(
        name=f"compare {len(members)} runs",
        experiment=experiment,
        params=_params(found),
        metrics=_metrics(found),
        tags={
            store.KIND: "comparison",
            MEMBERS: ",".join(members[: TAG_LIMIT // (store.ID_LENGTH + 1)]),
            FINGERPRINT: fingerprint(deciding),
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
