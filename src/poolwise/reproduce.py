"""Repeat a logged run and judge it: bit-identical, statistically equal, or different and why."""

import sys

from poolwise import arguments
from poolwise.exit_codes import exit_codes
from poolwise.paths import outputs, register_resolvers
from poolwise.provenance.judgement import DIFFERENT
from poolwise.runs.rerun import against, reproduce
from poolwise.tracking.credentials import given_uri, store_uri


def cli() -> None:
    """The console command `poolwise-reproduce`; exit code 0 same, 1 different, 2 not possible."""
    parser = arguments.parser(
        "reproduce",
        description="Repeat a logged run and judge it: bit-identical, statistically equal, or different and why.",
        epilog="Exit code: 0 bit-identical or statistically equal, 1 different or failed, 2 not possible.",
    )
    parser.add_argument("run", metavar="RUN_ID", help="the run to repeat")
    parser.add_argument(
        "changes", nargs="*", default=[], metavar="KEY=VALUE", help="settings to change, e.g. device.num_devices=4"
    )
    parser.add_argument("--against", metavar="RUN_ID", help="fit nothing; report why these two runs differ")
    parser.add_argument(
        "--at-commit",
        action="store_true",
        help="use the run's own code, in an environment built from its lock: this runs the patch from the store",
    )
    parser.add_argument("--data", metavar="PATH", help="the table, if the run did not log it, or a different one")
    parser.add_argument("--tracking-uri", metavar="URI", help="the store; default: MLFLOW_TRACKING_URI, else outputs/")
    asked = parser.parse_intermixed_args()
    if asked.against and (asked.changes or asked.at_commit or asked.data):
        parser.error("--against fits nothing: it takes two run ids and --tracking-uri only")
    register_resolvers()
    with exit_codes():
        uri = store_uri(given_uri(asked.tracking_uri), outputs())
        if asked.against:
            found = against(asked.run, asked.against, uri=uri)
        else:
            found = reproduce(
                asked.run, uri=uri, data=asked.data or "", changes=asked.changes, at_commit=asked.at_commit
            )
        sys.exit(found.verdict == DIFFERENT)


if __name__ == "__main__":
    cli()
