"""Checks of the draws: summary, LOO, gate, and checks as plug-ins."""
