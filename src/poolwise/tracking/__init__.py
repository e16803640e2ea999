"""Where a run is kept; the only room that imports MLflow."""
