"""Posterior draws: engines, devices, streams of random numbers, the labelled tree."""
