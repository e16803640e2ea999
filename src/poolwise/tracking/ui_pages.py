"""Pages of MLflow's UI: a run, and the runs of an experiment ranked by elpd_loo."""

import base64
import json
import time
import zlib

from poolwise.paths import HOST, PORT
from poolwise.tracking.credentials import SERVERS, public

TAG = "mlflow.sharedViewState.ranked"
# without workflowType the UI opens pages of traces
RUN = "#/experiments/{}/runs/{}?workflowType=machine_learning"
TABLE = "#/experiments/{}/runs?workflowType=machine_learning"


def ui_address(uri: str, *, host: str = HOST, port: int = PORT) -> str:
    """The address of the UI of a store: a server's own, else that of `poolwise.ui`."""
    return public(uri).rstrip("/") if uri.startswith(SERVERS) else f"http://{host}:{port}"


def ranked_view() -> str:
    """The view of MLflow's runs table: only runs with an elpd_loo, best first, with the informative columns.

    The UI reads it from a tag of the experiment. Its format is undocumented.
    """
    metrics = ("elpd_loo", "elpd_loo_se", "p_loo")  # the UI puts them first: few, so that the verdicts are in sight
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
