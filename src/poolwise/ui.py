"""The MLflow UI of the store, and the addresses of its ranked runs."""

import os
import sys

from poolwise import arguments
from poolwise.exit_codes import exit_codes
from poolwise.paths import HOST, PORT, outputs
from poolwise.report.terminal import say
from poolwise.tracking.credentials import SERVERS, store_uri


def cli() -> None:
    """Serve the UI until it is stopped: `python -m poolwise.ui [--port 5000]`."""
    parser = arguments.parser("ui", description=__doc__)
    parser.add_argument("--host", default=HOST, help="address to listen on; default: this machine only")
    parser.add_argument("--port", type=int, default=PORT)
    asked = parser.parse_args()
    with exit_codes():
        serve(asked.host, asked.port)


def serve(host: str, port: int) -> None:
    """Print the address of the ranked runs of every experiment; serve the store if it is not a server already."""
    from poolwise.tracking import store, ui_pages

    uri = store_uri(None, outputs())
    pages = store.ranked_pages(uri)
    base = ui_pages.ui_address(uri, host=host, port=port)
    for name, page in pages.items():
        say(f"{name}: {base}/{page}")
    if not pages:
        say("no experiments yet; `make run` creates the first")
    if uri.startswith(SERVERS):
        return
    say("starting; the pages are available after a few seconds; press Ctrl-C to stop")
    environment = os.environ | {
        "MLFLOW_BACKEND_STORE_URI": uri,  # not on the command line, which every user of the machine can read
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # two processes instead of ten
    }
    command = [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1"]
    os.execve(sys.executable, command, environment)  # this process becomes the server, so that a signal ends it


if __name__ == "__main__":
    cli()
