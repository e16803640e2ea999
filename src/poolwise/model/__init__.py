"""The joint density of parameters and counts: poolings, likelihoods, priors."""

# ArviZ registers NumPyro as a module that is loaded at its first attribute; `import numpyro.distributions` as the first
# use of it would run that package twice and lose its submodules, so that `numpyro.factor` fails. This loads it whole.
from numpyro import distributions  # noqa: F401
