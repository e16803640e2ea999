"""Addresses of tracking stores without their secrets.

A tracking URI may contain a user name and a password; nothing that is written may. Records get the public address,
and the environment keeps the rest for this process and its children.
"""

import os
import re
from pathlib import Path
from urllib.parse import unquote, unquote_plus

SERVERS = ("http://", "https://")
_FILES = ("sqlite", "file")  # an @ is part of the path
# names of parameters with a user or a secret, also within an ODBC string
_PRIVATE = re.compile(r"(?i)(user|uid|pass|pwd|secret|token|credential|(api|access|account)[ _-]?key)[\w .-]*=")
_ODBC = re.compile(r"(?i)odbc_connect=[^'\"\n]*")


def public(uri: str) -> str:
    """The address without user name and password: those before the @ and those in the query."""
    scheme, found, rest = uri.partition("://")
    if not found:
        return uri
    user = _user(scheme, rest)
    place, asked, query = rest[len(user) + 1 if user else 0 :].partition("?")
    kept = _public_query(query)
    return f"{scheme}{found}{place}{asked if kept or not query else ''}{kept}"


def scrub(text: str) -> str:
    """The text with user names and passwords removed from the addresses in it."""
    text = _ODBC.sub("", text)  # may contain blanks
    text = re.sub(r"[a-zA-Z][\w+.-]*://[^\s'\"]*", lambda found: public(found[0]), text)
    return re.sub(r"://(?!/)[^\s'\"]*@", "://", text)


def hide(arguments: list[str]) -> list[str]:
    """The command line with the public address in `tracking.uri=...`; its secrets move to the variables of MLflow.

    Hydra writes the command line to files, so this runs before Hydra sees it.
    """
    hidden = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key.lstrip("+").strip() == "tracking.uri":
            uri = value.strip().strip("'\"")
            shown = scrub(public(uri)) if "," in uri else public(uri)  # a comma may separate two addresses
            if shown != uri:
                _keep(uri)
                argument = f"{key}={value.replace(uri, shown)}"
        hidden.append(argument)
    return hidden


def given_uri(uri: str | None) -> str | None:
    """The public address of a command's own option; its secrets move to the variables of MLflow."""
    return hide([f"tracking.uri={uri}"])[0].partition("=")[2] if uri else None


def store_uri(asked: str | None, outputs: Path) -> str:
    """The store to log to, with secrets: `asked`, else `MLFLOW_TRACKING_URI`, else a database in `outputs`.

    If the variable names the same store as `asked`, the variable is used, because it may contain credentials.
    """
    if known := os.environ.get("MLFLOW_TRACKING_URI"):
        known = _keep(known)
    if asked is None or (known and public(known) == asked):
        return known or f"sqlite:///{outputs.resolve() / 'mlflow.db'}"
    return asked


def _user(scheme: str, rest: str) -> str:
    """User name and password before the @ of an address, or nothing."""
    if scheme.startswith(_FILES):
        return ""
    place = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in place:
        return place.rpartition("@")[0]
    # a password with a / or ? that is not percent-encoded; host:port/a@b is not one
    odd = re.match(r"([^/?#:@]*:(?!\d+(?:[/?#]|$)).*)@", rest, flags=re.DOTALL)
    return odd[1] if odd else ""


def _public_query(query: str) -> str:
    """The query without parameters that contain a user or a secret, even if encoded several times."""
    parts = query.split("&")
    kept = [part for part in parts if not _PRIVATE.search(_decoded(part))]
    if len(kept) < len(parts):
        kept = [part for part in kept if "=" in part]  # the others are the rest of a secret with an & in it
    return "&".join(kept)


def _decoded(part: str) -> str:
    while (once := unquote_plus(part)) != part:
        part = once
    return part


def _keep(uri: str) -> str:
    """Put an address into the environment; MLflow reads the secrets of a server from variables of their own."""
    scheme, _, rest = uri.partition("://")
    if f"{scheme}://" in SERVERS and (user := _user(scheme, rest)):
        name, _, password = user.partition(":")
        os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(name)
        os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(password)
        uri = public(uri)
    os.environ["MLFLOW_TRACKING_URI"] = uri
    return uri
