"""The draws of a fit to its findings: judged, compared with what is known, and used to predict.

draws -> summary, LOO -> rates integrated out if PSIS is not reliable -> verdict, the answer
      -> predictions -> every other enabled check
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import xarray as xr

from poolwise.checks import (
    exact_agreement,
    exposure_law,
    gate,
    groups,
    integrated_loo,
    leave_group_out,
    model_check,
    power_scaling,
    prior_scale,
    rate_ratios,
    refitted_loo,
    zeros,
)
from poolwise.checks.base import Check, FitView, Result, Settings
from poolwise.checks.loo import Loo, not_computed, psis_loo
from poolwise.checks.summary import relative_efficiency, summarise, summarise_kinds
from poolwise.counts.cells import Counts
from poolwise.counts.covariates import row_at
from poolwise.inference import predictive
from poolwise.inference.datatree import STORED_DRAW, joint, to_tree
from poolwise.inference.engines.base import Fit
from poolwise.inference.new_groups import NewGroups, new_groups
from poolwise.inference.rates import of_kinds
from poolwise.inference.streams import named_generator
from poolwise.model.count_model import Model, without_mean
from poolwise.model.priors import PriorValues

CHECKS: tuple[Check, ...] = (
    groups.CHECK,
    rate_ratios.CHECK,
    leave_group_out.CHECK,
    exact_agreement.CHECK,
    power_scaling.CHECK,
    exposure_law.CHECK,
    model_check.CHECK,
    zeros.CHECK,
)  # in the order of their lines


def examine(model: Model, counts: Counts, values: PriorValues, draws: Fit, settings: Settings) -> FitView:
    """Judge the draws, report the answer, predict from them, and run the other enabled checks.

    Parameters
    ----------
    values : site -> parameter -> (), the values of the priors
    """
    view = judged(model, counts, values, draws, settings)
    settings.on_answer(view)
    _add_predictive(view.tree, model, values, settings)
    return checked(view, settings)


def judged(model: Model, counts: Counts, values: PriorValues, draws: Fit, settings: Settings) -> FitView:
    """The view with the verdict on the draws, from the gate, from the checks that decide it, and from the priors."""
    tree = to_tree(draws.posterior, draws.sample_stats, counts)
    posterior, cells = tree["posterior"].to_dataset(), tree["constant_data"].to_dataset()
    summary = _summary(model, counts, posterior, values, settings)
    loo = _loo(model, counts, posterior, cells, values, summary, settings)
    view = FitView(
        counts=counts,
        model=model,
        prior_values=values,
        tree=tree,
        summary=summary,
        loo=loo,
        verdict=gate.judge(
            summary, tree["sample_stats"].to_dataset(), loo, max_tree_depth=settings.sampler.max_tree_depth
        ),
        new_group=predictive.new_group(
            model,
            posterior,
            values,
            exposure=settings.exposure,
            seed=settings.seed,
            above=settings.above,
            label=settings.group,
            x=row_at(counts.covariates, settings.at),
        ),
        at=settings.at,
        new_groups=_new_groups(model, counts, posterior, values, settings),
        prior_warnings=tuple(prior_scale.lines(model, values, counts)),
        switched_off=tuple(check.key for check in CHECKS if check.key not in settings.checks),
    )
    results = _run([check for check in CHECKS if check.decides], view, settings)
    is_exact = any(found.is_exact for found in results.values())
    of_priors = prior_scale.conditions(model, values, counts, view.posterior, is_exact=is_exact)
    more = (*(each for found in results.values() for each in found.conditions), *of_priors)
    return replace(view, results=results, verdict=replace(view.verdict, conditions=view.verdict.conditions + more))


def checked(view: FitView, settings: Settings) -> FitView:
    """The view with the results of all enabled checks, whose conditions decide the model check."""
    found = {**view.results, **_run([check for check in CHECKS if check.name not in view.results], view, settings)}
    results = {check.name: found[check.name] for check in CHECKS if check.name in found}
    of_model = tuple(each for result in results.values() for each in result.model_conditions)
    return view.with_findings(results=results, model_check=view.verdict.model_check(of_model))


def _run(checks: Sequence[Check], view: FitView, settings: Settings) -> dict[str, Result]:
    """The results of those that are enabled."""
    results = {}
    for check in checks:
        if check.key in settings.checks:
            with settings.stage(check.key):
                results[check.name] = check.run(view, settings)
    return results


def _summary(
    model: Model, counts: Counts, posterior: xr.Dataset, values: PriorValues, settings: Settings
) -> pd.DataFrame:
    """Of all parameters; rates that are not stored at all draws are drawn again, one for all groups that are alike."""
    has_events = bool((counts.cell_count >= model.likelihood.least_telling).any())
    heavy = without_mean(model, values, has_events=has_events)
    if STORED_DRAW not in posterior.dims:
        return summarise(posterior, heavy)
    if not model.integrates_rates:
        lam = joint(posterior)["lam"].transpose("group", "chain", "draw").values
        return summarise_kinds(posterior, [lam], np.arange(counts.num_groups), heavy)
    statistics = model.likelihood.statistics
    others = {str(name): each.values for name, each in posterior.drop_vars("lam").data_vars.items()}
    shape = posterior.sizes["chain"], posterior.sizes["draw"]
    rates = of_kinds(model, counts, values, others, shape, seed=settings.seed)
    return summarise_kinds(posterior, rates, statistics.alike(counts).kind, heavy)


def _loo(
    model: Model,
    counts: Counts,
    posterior: xr.Dataset,
    cells: xr.Dataset,
    values: PriorValues,
    summary: pd.DataFrame,
    settings: Settings,
) -> Loo:
    num_draws = posterior.sizes["chain"] * posterior.sizes["draw"]
    r_eff = relative_efficiency(summary, num_draws=num_draws)
    if STORED_DRAW in posterior.dims:
        loo = not_computed(counts.num_cells)
    else:
        blocks = predictive.pointwise_log_likelihood(model.likelihood, posterior, cells)
        loo = psis_loo(blocks, counts.cell_multiplicity, r_eff=r_eff)
    loo = integrated_loo.integrated_where_doubtful(loo, posterior, counts, model, values, r_eff=r_eff)
    if loo.psis is None:
        return loo
    return refitted_loo.refitted_where_bad(loo, counts, posterior, model, values, settings)


def _new_groups(
    model: Model, counts: Counts, posterior: xr.Dataset, values: PriorValues, settings: Settings
) -> NewGroups | None:
    if settings.new_groups == 1:
        return None
    exposure, seed, number = settings.exposure, settings.seed, settings.new_groups
    x = row_at(counts.covariates, settings.at)
    return new_groups(model, posterior, values, exposure=exposure, seed=seed, number=number, x=x)


def _add_predictive(tree: xr.DataTree, model: Model, values: PriorValues, settings: Settings) -> None:
    """Add the prior and posterior predictive draws."""
    seed, num_draws = settings.seed, settings.num_draws
    cells = tree["constant_data"].to_dataset()
    rng = named_generator(seed, "posterior_predictive")
    posterior = tree["posterior"].to_dataset()
    replicated = predictive.posterior_predictive(model, posterior, cells, num_draws=num_draws, rng=rng)
    prior, prior_predictive = predictive.prior(model, values, cells, num_draws=num_draws, seed=seed)
    tree["posterior_predictive"] = xr.DataTree(replicated)
    tree["prior"], tree["prior_predictive_cells"] = xr.DataTree(prior), xr.DataTree(prior_predictive)
