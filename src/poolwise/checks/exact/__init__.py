"""The exact answer, in NumPy alone."""
