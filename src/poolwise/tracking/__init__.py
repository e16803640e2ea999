"""Storage of runs; the only subpackage that imports MLflow."""
