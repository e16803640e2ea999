"""The draws of a fit to all that it says: judged, held against what is known, and used to predict.

draws -> summary, LOO -> values that are in doubt replaced -> verdict
      -> exact answer, groups left out, weight of the priors, predictions
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr

from poolwise import checks, exact, leave_out, oracle, provenance, sensitivity
from poolwise.inference import nuts, predictive
from poolwise.inference.datatree import to_tree
from poolwise.judgement import Outcome

if TYPE_CHECKING:
    from poolwise.pipeline import Job

BELOW_DRAWS = 4000  # of which the distribution function of a row left out is computed


@dataclass(frozen=True)
class Findings:
    """What a fit says.

    Attributes
    ----------
    tree : the draws of posterior, prior and both predictive distributions, with the data
    left_out : leave-one-out values, those in doubt replaced
    groups_out : log p(y_g | y_-g) of every group; None unless asked
    comparison : the fit beside the exact answer; None where there is none within seconds
    no_exact : why there is none
    sensitivity : see `sensitivity.power_scaling`; None unless asked
    """

    tree: xr.DataTree
    summary: pd.DataFrame
    left_out: leave_out.Replaced
    verdict: checks.Verdict
    new_group: predictive.NewGroup
    digests: dict[str, str]
    groups_out: leave_out.GroupsOut | None = None
    comparison: oracle.Comparison | None = None
    no_exact: str = ""
    sensitivity: pd.DataFrame | None = None

    @property
    def loo(self) -> checks.Loo:
        """Leave-one-out predictive accuracy."""
        return self.left_out.loo

    @property
    def outcome(self) -> Outcome:
        """The findings in the terms in which runs are compared."""
        num_chains = self.tree["posterior"].sizes["chain"]
        return Outcome(self.digests, self.summary, self.loo.elpd, self.loo.mcse, num_chains)

    def below(self) -> np.ndarray:
        """P(Y < y) of a row of each cell given all other rows, (C,)."""
        posterior, cells = self.tree["posterior"].to_dataset(), self.tree["constant_data"].to_dataset()
        num_chains, length = posterior.sizes["chain"], posterior.sizes["draw"]
        draws = predictive.evenly_spaced(length, max(1, BELOW_DRAWS // num_chains))
        log_below = checks.loo_below(
            predictive.pointwise_log_likelihood(posterior, cells),
            predictive.pointwise_log_below(posterior, cells, draws=draws),
            draws=draws,
            r_eff=checks.relative_efficiency(self.summary, num_draws=num_chains * length),
        )
        return np.exp(log_below)


def examine(job: "Job", draws: nuts.Fit, on_group: Callable[[str], None] = lambda label: None) -> Findings:
    """Judge the draws and predict from them.

    Parameters
    ----------
    on_group : called with its label before each group is left out
    """
    config, model, counts, values = job.config, job.model, job.counts, job.values
    tree = to_tree(draws.posterior, draws.sample_stats, counts)
    posterior, cells = tree["posterior"].to_dataset(), tree["constant_data"].to_dataset()
    summary = checks.summarise(posterior)
    num_draws = posterior.sizes["chain"] * posterior.sizes["draw"]
    r_eff = checks.relative_efficiency(summary, num_draws=num_draws)
    blocks = predictive.pointwise_log_likelihood(posterior, cells)
    loo = checks.loo(blocks, counts.cell_multiplicity, r_eff=r_eff)
    left_out = leave_out.replaced(loo, posterior, cells, model, values, r_eff=r_eff)
    beside, no_exact = _exact(job, summary, left_out.loo) if config.checks.exact else (None, "not asked for")
    add_predictive(job, tree)
    return Findings(
        tree=tree,
        summary=summary,
        left_out=left_out,
        verdict=checks.judge(
            summary, tree["sample_stats"].to_dataset(), left_out.loo, max_tree_depth=config.sampler.max_tree_depth
        ),
        new_group=predictive.new_group(
            model,
            posterior,
            values,
            exposure=config.predict.exposure,
            seed=config.seed,
            above=config.predict.above,
            label=config.predict.group,
        ),
        digests=provenance.posterior_digests(draws.posterior),
        groups_out=_groups_out(job, on_group) if config.checks.leave_group_out else None,
        comparison=beside,
        no_exact=no_exact,
        sensitivity=sensitivity.power_scaling(posterior, cells, model, values) if config.checks.sensitivity else None,
    )


def add_predictive(job: "Job", tree: xr.DataTree) -> None:
    """Add what the priors and the posterior predict."""
    seed, asked = job.config.seed, job.config.predict
    cells = tree["constant_data"].to_dataset()
    replicated = predictive.posterior_predictive(
        tree["posterior"].to_dataset(),
        cells,
        num_draws=asked.num_draws,
        rng=predictive.generator(seed, "posterior_predictive"),
    )
    prior, prior_predictive = predictive.prior(job.model, job.values, cells, num_draws=asked.num_draws, seed=seed)
    for name, dataset in (
        ("posterior_predictive", replicated),
        ("prior", prior),
        ("prior_predictive", prior_predictive),
    ):
        tree[name] = xr.DataTree(dataset)


def _exact(job: "Job", summary: pd.DataFrame, loo: checks.Loo) -> tuple[oracle.Comparison | None, str]:
    """The fit beside the exact answer, or why there is none."""
    if why := exact.reason_against(job.model, job.counts):
        return None, why
    with job.stage("exact"):
        try:
            answer = exact.solve(job.model, job.counts, job.values)
        except exact.NotExact as error:
            return None, str(error)
    return oracle.compare(summary, loo, answer), ""


def _groups_out(job: "Job", on_group: Callable[[str], None]) -> leave_out.GroupsOut:
    with job.stage("leave_group_out"):
        return leave_out.leave_group_out(
            job.model,
            job.counts,
            job.values,
            seed=job.config.seed,
            sampler=nuts.Sampler(**job.config.sampler.model_dump()),
            device=nuts.Device(**job.config.device.model_dump()),
            on_group=on_group,
        )
