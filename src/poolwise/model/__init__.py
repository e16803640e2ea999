"""The joint density of parameters and counts: poolings, likelihoods, priors."""
