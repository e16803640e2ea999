"""A table file to validated counts."""
