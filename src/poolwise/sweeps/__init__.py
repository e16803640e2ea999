"""Sweeps: request, plan, launch and outcomes of many fits."""
