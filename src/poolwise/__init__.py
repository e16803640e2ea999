"""Pooled, unpooled or hierarchical? Count models fitted with NumPyro, checked, tracked in MLflow and compared."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["load"]


def load(run_id: str, tracking_uri: str | None = None) -> "xr.DataTree":
    """A logged run as a DataTree on which plain ArviZ calls are right, in float64.

    Parameters
    ----------
    run_id : of MLflow, as the last lines of a run print it; a unique beginning of it is enough
    tracking_uri : the store; by default `MLFLOW_TRACKING_URI`, else the database in `outputs/`

    Returns
    -------
    posterior, prior : the rates `lam` and the parameters that take a prior, (chain, draw[, group])
    derived : functions of them: `alpha`, `beta`, `phi`
    sample_stats : of the sampler, (chain, draw)
    log_prior : log density of the priors of the configuration, (chain, draw); of rates their sum
    log_likelihood, posterior_predictive : `y` (chain, draw, row), at every draw of the posterior
    prior_predictive : `y` (chain, draw, row), at every draw of the prior, or at fewer for more than 5000 rows
    observed_data, constant_data : `y` and `exposure` (row)

    Notes
    -----
    Rows are in the order of the table. The coordinate `row` is the row number: 1 for the first row below the header;
    blank lines are not counted.

    The dimension of the groups bears the name of their column (`location`), and in data by row this name is the group
    of each row: `tree.posterior.lam.sel(location=tree.observed_data.location)` is the rate of every row. A name that
    the tree or ArviZ uses for something else (`group`, `row`, `chain`, `mu`, ...) gets the suffix `_label`, and a
    column without a name becomes `group_label`; a slash becomes an underscore.

    `arviz.loo` and `arviz.compare` give the numbers of this project to Monte Carlo error, with four exceptions. Each
    is a warning and stands in `tree.attrs`:

    - `elpd_loo`: where importance sampling is in doubt, this project integrates the rates out; ArviZ cannot.
    - `log_likelihood`: it is left out, and `posterior_predictive` is thinned, above 1e8 values.
    - `rates`: of so many groups that their rates are not stored at every draw, `lam` is in this group and not in
      `posterior`, and `log_likelihood` is left out.
    - `rows`: the order of the table is not kept in a run of version 0.1, of more than 100,000 rows, or of a table that
      was grouped elsewhere, so the rows are sorted. ArviZ compares rows by position: compare runs of one file.

    Raises
    ------
    UnknownRunError
        if the store has no such run, or several whose ids begin so, or the run has no draws.
    ReproductionError
        if the run is not a finished fit, or its record is damaged.
    RequestError
        if the table has more than 1e8 rows.
    """
    from poolwise.runs.load import load  # jax and mlflow are loaded when a run is, not when the package is

    return load(run_id, tracking_uri)
