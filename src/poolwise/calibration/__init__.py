"""Simulation-based calibration of a variant."""
