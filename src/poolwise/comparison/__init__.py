"""Comparison and ranking of logged runs."""
