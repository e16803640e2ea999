"""Compare logged runs: one ranked table, figures, and a run that contains them.

    run ids, a sweep or a filter -> finished runs -> pointwise elpd -> table, sentences, figures -> MLflow

Nothing is refitted: the table needs `loo/pointwise.csv` of every run, some figures need the stored draws.
"""

from poolwise import arguments
from poolwise.comparison.pipeline import compare_runs, matching, named, of_sweep
from poolwise.exit_codes import exit_codes
from poolwise.paths import outputs
from poolwise.tracking.credentials import given_uri, store_uri


def cli() -> None:
    """The console command `poolwise-compare`."""
    parser = arguments.parser("compare", description=__doc__)
    parser.add_argument("runs", nargs="*", metavar="RUN_ID", help="the runs to compare")
    parser.add_argument("--sweep", metavar="PARENT_RUN_ID", help="compare the runs of a sweep")
    parser.add_argument("--filter", metavar="SEARCH", help="compare the runs that match, in MLflow's search language")
    parser.add_argument("--tracking-uri", metavar="URI", help="the store; default: MLFLOW_TRACKING_URI, else outputs/")
    parser.add_argument("--experiment", metavar="NAME", help="apply --filter to this experiment only")
    asked = parser.parse_args()
    if sum([bool(asked.runs), asked.sweep is not None, asked.filter is not None]) != 1:
        parser.error("give exactly one of: run ids, --sweep PARENT_RUN_ID, --filter SEARCH")
    if asked.experiment is not None and asked.filter is None:
        parser.error("--experiment needs --filter")
    with exit_codes():
        uri = store_uri(given_uri(asked.tracking_uri), outputs())
        if asked.sweep is not None:
            runs = of_sweep(asked.sweep, uri=uri)
        elif asked.filter is not None:
            runs = matching(asked.filter, uri=uri, experiment=asked.experiment)
        else:
            runs = named(asked.runs, uri=uri)
        compare_runs(runs, uri=uri, outputs=outputs())


if __name__ == "__main__":
    cli()
