"""Many fits: what is asked for, planned, run and accounted for."""
