"""What made a run, and whether two runs are the same."""
