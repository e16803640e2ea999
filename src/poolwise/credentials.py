"""Addresses of tracking stores without their secrets.

A tracking URI may hold a user name and a password. Nothing that is written may: what is recorded is the public
address, and the environment keeps the rest for this process and its children.
"""

import os
import re
from pathlib import Path


def public(uri: str) -> str:
    """The address less user name and password."""
    return re.sub(r"://[^/?#]*@", "://", uri)


def hide(arguments: list[str]) -> list[str]:
    """The command line with `tracking.uri=...` made public; the whole address goes to `MLFLOW_TRACKING_URI`.

    Hydra writes the command line into files of its own, so this is done before Hydra sees it.
    """
    hidden = []
    for argument in arguments:
        key, _, uri = argument.partition("=")
        uri = uri.strip("'\"")
        if key.lstrip("+") == "tracking.uri" and public(uri) != uri:
            os.environ["MLFLOW_TRACKING_URI"] = uri
            argument = f"{key}={public(uri)}"
        hidden.append(argument)
    return hidden


def store_uri(asked: str | None, outputs: Path) -> str:
    """The store to log to, secrets included: as asked, else `MLFLOW_TRACKING_URI`, else a database in `outputs`.

    Where the variable names the store that is asked for, it is taken, for the credentials it may hold.
    """
    known = os.environ.get("MLFLOW_TRACKING_URI")
    if asked is None or (known and public(known) == asked):
        return known or f"sqlite:///{outputs.resolve() / 'mlflow.db'}"
    return asked
