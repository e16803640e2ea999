"""The page of MLflow's UI that shows the runs of an experiment ranked by elpd_loo."""

import base64
import json
import time
import zlib

from mlflow import MlflowException

from poolwise.tracking.store import connect


def ranked_pages(uri: str) -> dict[str, str]:
    """For every experiment with runs, the page of the UI that lists them ranked by elpd_loo.

    The view is a tag that the UI reads. Its format is undocumented; if the store refuses it, the plain table is used.
    """
    client, pages = connect(uri), {}
    for experiment in client.search_experiments():
        if not client.search_runs([experiment.experiment_id], max_results=1):
            continue
        page = f"#/experiments/{experiment.experiment_id}/runs?workflowType=machine_learning"
        try:
            client.set_experiment_tag(experiment.experiment_id, "mlflow.sharedViewState.ranked", _ranked_view())
            page += "&viewStateShareKey=ranked"
        except MlflowException:
            pass
        pages[experiment.name] = page
    return pages


def _ranked_view() -> str:
    """The state of MLflow's runs table: only runs with an elpd_loo, best first, with the informative columns."""
    metrics = ("elpd_loo", "elpd_loo_se", "p_loo", "r_hat_max", "ess_bulk_min", "divergences")
    judged, params = ("verdict", "model_check"), ("pooling.name", "likelihood.name")
    state = {
        "searchFilter": "metrics.elpd_loo < 0",
        "orderByKey": "metrics.`elpd_loo`",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": [
            *(f"tags.`{name}`" for name in judged),
            *(f"metrics.`{name}`" for name in metrics),
            *(f"params.`{name}`" for name in params),
        ],
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "compareRunCharts": [],
        "viewMaximized": True,
    }
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    now = int(time.time() * 1000)
    view = {"name": "Ranked by elpd_loo", "createdAt": now, "updatedAt": now, "state": f"deflate;{packed}"}
    return json.dumps(view)
