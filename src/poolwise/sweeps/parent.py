"""The parent run of a sweep: started or resumed, with a live table of its jobs."""

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

from rich.console import Console
from rich.live import Live
from rich.table import Table

from poolwise.config import Config
from poolwise.errors import SweepError, TrackingError, UnreachableError
from poolwise.paths import outputs
from poolwise.provenance import fingerprints
from poolwise.report import terminal
from poolwise.runs import job
from poolwise.sweeps.plan import SHOWN, Planned
from poolwise.sweeps.request import Request
from poolwise.tracking import liveness, spool, store
from poolwise.tracking import run as tracking
from poolwise.tracking.credentials import scrub
from poolwise.tracking.locks import exclusive_lock
from poolwise.tracking.record import Record
from poolwise.tracking.store import Logged

SETTLING_SECONDS = 20  # that workers have to end when their sweep ends


def settle(alive: Callable[[], bool]) -> None:
    """Wait for workers to end, at most `SETTLING_SECONDS`."""
    deadline = time.monotonic() + SETTLING_SECONDS
    while alive() and time.monotonic() < deadline:
        time.sleep(0.5)


@contextmanager
def parent_run(
    request: Request, configs: Sequence[Config], planned: Sequence[Planned], *, uri: str
) -> Iterator[tracking.Run]:
    """The parent: a new run, or the unfinished run of the same sweep.

    Raises
    ------
    SweepError
        if the same sweep is running in another process.
    """
    code = job.code_state()
    fingerprint = fingerprints.fingerprint(
        {"jobs": sorted(each.run_fingerprint for each in planned) or request.overrides}
    )
    record = Record(
        name=request.name,
        experiment=configs[0].data.name,
        params={"jobs": len(planned) or "unknown", "overrides": " ".join(request.overrides)},
        tags={
            store.KIND: "sweep",
            "sweep_fingerprint": fingerprint,
            "code_state": code.state,
            "mlflow.source.name": "poolwise.run",
            "mlflow.source.git.commit": code.commit,
        },
    )
    running = SweepError(f"sweep {request.name} is already running. Wait for it to end; finished jobs are reused.")
    with exclusive_lock(outputs() / "locks" / fingerprint, otherwise=running):
        liveness.mark_dead_killed(record.experiment, uri=uri)
        unfinished = _unfinished(record, uri=uri) if configs[0].reuse is not False else None
        if unfinished:
            terminal.say(f"resuming sweep {unfinished.run_id}")
        reopen = unfinished.run_id if unfinished else ""
        stack = ExitStack()
        parent = stack.enter_context(tracking.logged_run(record, uri=uri, outputs=outputs(), reopen=reopen))
        try:
            with stack:
                yield parent
        finally:  # after the attempt to send it
            if parent.is_spooled:
                terminal.say(*parent.spool_lines())


def settled(parent: tracking.Run, launch: Callable[[], object]) -> str:
    """Launch; no child is left RUNNING in any case. Returns why the launcher ended early, or nothing."""
    ended = ""
    try:
        launch()
    except Exception as error:  # a launcher raises when a worker dies; the jobs are still reported
        ended = f"the launcher ended early: {type(error).__name__}: {store.first_line(error)}"
        parent.write("failure/launcher.txt", scrub(traceback.format_exc()))
    finally:

        def running() -> list[Logged]:
            return [run for run in fits(parent) if run.status == "RUNNING"]

        deliver_waiting_jobs(parent)
        settle(lambda: any(liveness.is_alive(run) and not liveness.is_mine(run) for run in running()))
        for run in running():
            with suppress(*store.OUTAGES):
                liveness.mark_killed([run], uri=parent.uri, also_mine=True)
    return ended


def deliver_waiting_jobs(parent: tracking.Run) -> None:
    """Send the spooled jobs to the store of their sweep; if this fails, move the sweep to the spool too.

    Its report has the current ids of the jobs; they are corrected when it is sent together with the jobs.
    """
    if parent.is_spooled:
        return
    reason = store.outage(parent.uri)
    if not reason:
        parent.deliver()
        if spool.has_jobs_of(parent.run_id, uri=parent.uri, outputs=outputs()):
            reason = parent.outage or "it did not accept all jobs"
    if reason:
        with suppress(TrackingError):  # reported when the sweep ends
            parent.move_to_spool(reason)


def fits(parent: tracking.Run) -> list[Logged]:
    """The runs of a sweep, finished ones first, from the store and from the folders of runs.

    A job may be in the spool while its sweep is not, and a store may have stopped answering.
    """
    stored: list[Logged] = []
    with suppress(*store.OUTAGES):
        stored = [run for run in store.children(parent.run_id, uri=parent.uri) if "run_fingerprint" in run.tags]
    ids = {run.run_id for run in stored}
    told = [run for run in tracking.recorded(outputs(), sweep=parent.run_id) if run.run_id not in ids]
    return sorted([*stored, *told], key=lambda run: run.status != "FINISHED")


@contextmanager
def table(parent: tracking.Run, planned: Sequence[Planned]) -> Iterator[None]:
    """Show a live table of the jobs if standard error is a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal or not planned:
        yield
        return
    began = time.time()

    def drawn() -> Table:
        return _drawn(planned, tracking.states(outputs(), since=began))

    with Live(get_renderable=drawn, console=console, transient=True, refresh_per_second=4):
        yield


def _unfinished(record: Record, *, uri: str) -> Logged | None:
    """The newest sweep of the same jobs, if it is unfinished."""
    where = f"tags.sweep_fingerprint = '{record.tags['sweep_fingerprint']}'"
    with suppress(UnreachableError):
        found = store.search(where, uri=uri, experiments=[record.experiment])
        return found[0] if found and found[0].status != "FINISHED" else None
    return None


def _drawn(planned: Sequence[Planned], states: dict[str, dict[str, object]]) -> Table:
    drawn = Table("job", "name", "stage", "draws", "divergences", "elpd_loo", box=None)
    for each in planned[:SHOWN]:
        state = states.get(each.run_fingerprint, {"stage": "reused" if each.run_id else "waiting"})
        elpd = state.get("elpd")
        drawn.add_row(
            str(each.number),
            each.name,
            str(state["stage"]),
            str(state.get("draws", "")),
            str(state.get("divergences", "")),
            f"{elpd:.2f}" if isinstance(elpd, float) else "",
        )
    return drawn
