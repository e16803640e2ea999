"""Whether the process behind a RUNNING run still lives, and what ends the runs of those that do not."""

import os
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from poolwise.tracking.store import OUTAGES, Logged, connect, search

PROCESS, HEARTBEAT = "process", "heartbeat"  # tags: who writes a run, and when it last said so
HEARTBEAT_SECONDS = 20
SILENCE_SECONDS = 180  # of a process on another host, until its run counts as abandoned


def this_process() -> str:
    """Who writes a run: host and process id."""
    return f"{socket.gethostname()}:{os.getpid()}"


def is_alive(run: Logged) -> bool:
    """Whether the process behind a RUNNING run is still there: looked up on this host, by heartbeat on others."""
    host, _, pid = run.tags.get(PROCESS, "").rpartition(":")
    if host == socket.gethostname() and pid.isdigit():
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # it is there, and another user's
            return True
        return not _is_zombie(int(pid))
    return time.time() - float(run.tags.get(HEARTBEAT, 0)) < SILENCE_SECONDS


def is_mine(run: Logged) -> bool:
    """Whether this very process wrote a run."""
    return run.tags.get(PROCESS) == this_process()


def mark_killed(runs: Sequence[Logged], *, uri: str, also_mine: bool = False) -> list[Logged]:
    """End as KILLED the RUNNING runs whose process is gone, and if asked those that this one left; returns them."""
    client = connect(uri)
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
    """End what killed processes left RUNNING in an experiment; nothing is done where the store does not answer."""
    with suppress(*OUTAGES):
        mark_killed(search("attributes.status = 'RUNNING'", uri=uri, experiments=[experiment]), uri=uri)


def _is_zombie(pid: int) -> bool:
    """Whether a process has ended and only waits for its parent to notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False
