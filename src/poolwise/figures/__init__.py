"""A judged fit to pictures. Nothing is imported here: the config reads the names of figures and stays light."""
