"""Addresses of tracking stores without their secrets.

A tracking URI may hold a user name and a password. Nothing that is written may: what is recorded is the public
address, and the environment keeps the rest for this process and its children.
"""

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit


def public(uri: str) -> str:
    """The address less user name and password; in any other text, every address in it."""
    return re.sub(r"://[^/?#\s]*@", "://", uri)


def hide(arguments: list[str]) -> list[str]:
    """The command line with `tracking.uri=...` made public; what it held goes to the variables that MLflow reads.

    Hydra writes the command line into files of its own, so this is done before Hydra sees it.
    """
    hidden = []
    for argument in arguments:
        key, _, uri = argument.partition("=")
        uri = uri.strip("'\"")
        if key.lstrip("+") == "tracking.uri" and public(uri) != uri:
            _keep(uri)
            argument = f"{key}={public(uri)}"
        hidden.append(argument)
    return hidden


def store_uri(asked: str | None, outputs: Path) -> str:
    """The store to log to, secrets included: as asked, else `MLFLOW_TRACKING_URI`, else a database in `outputs`.

    Where the variable names the store that is asked for, it is taken, for the credentials it may hold.
    """
    if known := os.environ.get("MLFLOW_TRACKING_URI"):
        known = _keep(known)
    if asked is None or (known and public(known) == asked):
        return known or f"sqlite:///{outputs.resolve() / 'mlflow.db'}"
    return asked


def _keep(uri: str) -> str:
    """Put an address into the environment; those of a server without its secrets, which MLflow takes from there."""
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https") and parts.username is not None:
        os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(parts.username)
        os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(parts.password or "")
        uri = public(uri)
    os.environ["MLFLOW_TRACKING_URI"] = uri
    return uri
