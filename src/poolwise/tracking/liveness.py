"""Whether the process of a RUNNING run is alive; runs of dead processes are ended."""

import os
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from poolwise.tracking import store
from poolwise.tracking.store import HEARTBEAT, OUTAGES, PROCESS, Logged

HEARTBEAT_SECONDS = 20
SILENCE_SECONDS = 180  # without a heartbeat from another host, after which a run counts as abandoned


def this_process() -> str:
    """Host and process id of this process."""
    return f"{socket.gethostname()}:{os.getpid()}"


def is_alive(run: Logged) -> bool:
    """Whether the process of a RUNNING run is alive: by process id on this host, by heartbeat on others."""
    host, _, pid = run.tags.get(PROCESS, "").rpartition(":")
    if host == socket.gethostname() and pid.isdigit():
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # it is alive and belongs to another user
            return True
        return not _is_zombie(int(pid))
    return time.time() - float(run.tags.get(HEARTBEAT, 0)) < SILENCE_SECONDS


def is_mine(run: Logged) -> bool:
    """Whether this process writes the run."""
    return run.tags.get(PROCESS) == this_process()


def mark_killed(runs: Sequence[Logged], *, uri: str, also_mine: bool = False) -> list[Logged]:
    """End RUNNING runs of dead processes as KILLED, with `also_mine` those of this process too; returns them."""
    client = store.connect(uri)
    dead = [
        run
        for run in runs
        if run.status == "RUNNING" and PROCESS in run.tags and (not is_alive(run) or (also_mine and is_mine(run)))
    ]
    for run in dead:
        client.set_tag(run.run_id, "verdict", "failed")
        client.set_tag(run.run_id, "verdict_reasons", "its process is gone")
        client.set_terminated(run.run_id, "KILLED")
    return dead


def mark_dead_killed(experiment: str, *, uri: str) -> None:
    """End the runs that killed processes left RUNNING in an experiment; does nothing if the store does not answer."""
    with suppress(*OUTAGES):
        mark_killed(store.search("attributes.status = 'RUNNING'", uri=uri, experiments=[experiment]), uri=uri)


def _is_zombie(pid: int) -> bool:
    """Whether a process has ended and waits to be reaped by its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False
