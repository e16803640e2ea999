"""Send the spooled runs to their store: `python -m poolwise.sync`."""

import os

from poolwise import arguments
from poolwise.errors import TrackingError
from poolwise.exit_codes import exit_codes
from poolwise.paths import outputs
from poolwise.report.terminal import say
from poolwise.tracking.credentials import given_uri, store_uri

PATIENCE_SECONDS = 60  # timeout of a request; only the user of this command waits for it


def cli() -> None:
    """Send the spooled runs; exit code 1 if a store still does not take them."""
    parser = arguments.parser("sync", description=__doc__)
    parser.add_argument("--tracking-uri", metavar="URI", help="send to this store; default: each run to its own")
    asked = parser.parse_args()
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(PATIENCE_SECONDS))  # before `store` sets less
    with exit_codes():
        sync(store_uri(uri, outputs()) if (uri := given_uri(asked.tracking_uri)) else "")


def sync(to: str = "") -> None:
    """Send every spooled run to its store, or to `to`. Each arrives once, however often this is called.

    Raises
    ------
    TrackingError
        if some runs could not be sent.
    """
    from poolwise.tracking import spool

    nothing, faults = True, []
    for delivery in spool.deliveries(outputs(), to=to, patience=PATIENCE_SECONDS):
        for spool_id, run_id in delivery.sent.items():
            say(f"sent    {spool_id} to {delivery.target} as run {run_id}")
        if delivery.reason:
            faults.append(f"{delivery.waiting} runs wait for {delivery.target}: {delivery.reason}.")
        nothing = nothing and not delivery.sent and not delivery.reason
    if faults:
        raise TrackingError("\n".join([*faults, "No run is lost: repeat this command when the store answers."]))
    if nothing:
        say("no runs to send")


if __name__ == "__main__":
    cli()
