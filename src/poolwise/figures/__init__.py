"""A judged fit to pictures. This package imports nothing, so the config reads the names of figures cheaply."""
