"""The inputs of a run, and whether two runs are the same."""
