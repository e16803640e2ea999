"""The samplers of the bench. To add one: a function `prepare` in a file here, and its line below."""

from bench.samplers import blackjax_nuts, numpyro_notebook, nutpie_pymc, own, pystan_nuts
from bench.samplers.base import Draws, Problem, Sampler

__all__ = ["SAMPLERS", "Draws", "Problem", "Sampler"]

SAMPLERS = (
    Sampler("exact", "poolwise", "independent draws", own.exact),
    Sampler("nuts", "poolwise", "standardised, target 0.9", own.nuts),
    Sampler("nuts, target 0.8", "poolwise", "standardised", own.nuts_at_peers_target),
    Sampler("blackjax", "blackjax", "density of nuts, target 0.8", blackjax_nuts.prepare),
    Sampler("nutpie", "nutpie", "PyMC, centred, target 0.8", nutpie_pymc.prepare),
    Sampler("pystan", "pystan", "centred, target 0.8", pystan_nuts.prepare),
    Sampler("notebook", "numpyro", "centred, target 0.9, float32", numpyro_notebook.prepare),
)
