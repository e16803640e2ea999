"""The joint density of parameters and counts: poolings, likelihoods, priors."""

# ArviZ registers NumPyro as a lazy module. If `import numpyro.distributions` is its first use, the package runs twice
# and loses its submodules, so `numpyro.factor` fails. This import loads it completely.
from numpyro import distributions  # noqa: F401
