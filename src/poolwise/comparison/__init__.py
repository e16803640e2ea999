"""Logged runs ranked."""
