"""One logged fit."""
