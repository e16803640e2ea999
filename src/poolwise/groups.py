"""A logged run to the groups that differ: ranks, contrasts and probabilities, from its stored draws."""

from poolwise import arguments
from poolwise.exit_codes import exit_codes
from poolwise.paths import outputs
from poolwise.report.terminal import say
from poolwise.runs.group_report import group_report
from poolwise.text import terminal_width
from poolwise.tracking.credentials import given_uri, store_uri


def cli() -> None:
    """The console command `poolwise-groups`; exit code 0 done, 2 not possible."""
    parser = arguments.parser("groups", description=__doc__)
    parser.add_argument("run", metavar="RUN_ID", help="a finished fit")
    parser.add_argument("--against", metavar="LABEL", help="compare every group with this one")
    parser.add_argument("--above", metavar="RATE", type=float, help="the probability that each rate is above this one")
    parser.add_argument("--top", metavar="N", type=_positive, default=20, help="rows of a table; default: 20")
    parser.add_argument("--tracking-uri", metavar="URI", help="the store; default: MLFLOW_TRACKING_URI, else outputs/")
    asked = parser.parse_args()
    with exit_codes():
        uri = store_uri(given_uri(asked.tracking_uri), outputs())
        told = group_report(
            asked.run, uri=uri, against=asked.against, above=asked.above, top=asked.top, width=terminal_width()
        )
        say(*told)


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise ValueError(f"{text} is not positive")
    return value


if __name__ == "__main__":
    cli()
