"""A sweep at work: what will be done, the parent run, the table while it runs, and the account at its end."""

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.table import Table

from poolwise import pipeline, provenance, spool, store, terminal, tracking, twins, words
from poolwise.background import every
from poolwise.compare import compare_runs
from poolwise.comparison import ComparisonError
from poolwise.config import Config, outputs
from poolwise.credentials import scrub, store_uri
from poolwise.errors import DataError, SweepError, TrackingError, UnknownRunError, UnreachableError
from poolwise.locks import held
from poolwise.record import Record
from poolwise.store import Logged
from poolwise.sweep import SHOWN, Planned, Request, settle


@dataclass(frozen=True)
class Outcome:
    """A job after the sweep: its name, status, elpd_loo and run, where there are such."""

    number: int
    name: str
    status: str
    run: Logged | None

    @property
    def is_done(self) -> bool:
        """Whether there is a finished run of it."""
        return self.status in ("FINISHED", "reused")


def store_of(configs: Sequence[Config]) -> str:
    """The store of a sweep, or its spool if it does not answer."""
    return spool.reachable(store_uri(configs[0].tracking.uri, outputs()), outputs())


def plan(jobs: Sequence[Sequence[str]], configs: Sequence[Config], *, uri: str) -> list[Planned]:
    """Every job with what will be done about it, its table read; none where a sweeper proposes the jobs."""
    planned, faults, among = [], [], dict[str, list[Logged]]()
    for number, (overrides, config) in enumerate(zip(jobs, configs, strict=False)):
        try:
            job = pipeline.prepare(config, tuple(overrides))
        except DataError as error:
            faults.append(f"job {number}: {error}")
            continue
        record = pipeline.describe(job)
        if record.experiment not in among:
            among[record.experiment] = []
            with suppress(UnreachableError):  # it answered a moment ago; what follows goes to the spool
                if config.reuse is not False:
                    among[record.experiment] = twins.candidates(record.experiment, uri=uri)
        run_id, remark = _decide(record, pipeline.ingredients(job), among[record.experiment], uri=uri)
        fingerprint = record.tags["run_fingerprint"]
        planned.append(Planned(number, record.name, fingerprint, run_id, remark))
    if faults:
        raise DataError("\n".join(faults))
    return planned


def show(planned: Sequence[Planned]) -> None:
    """Print the list of jobs."""
    for each in planned[:SHOWN]:
        terminal.say(f"{each.number:>4}  {each.name:<28} {each.remark}")
    if len(planned) > SHOWN:
        terminal.say(f"      and {len(planned) - SHOWN} more jobs")


@contextmanager
def parent_run(
    request: Request, configs: Sequence[Config], planned: Sequence[Planned], *, uri: str
) -> Iterator[tracking.Run]:
    """The parent: a new run, or that of the same sweep if it did not finish.

    Raises
    ------
    SweepError
        if the same sweep is running in another process.
    """
    code = pipeline.code_state()
    fingerprint = provenance.fingerprint(
        {"jobs": sorted(each.run_fingerprint for each in planned) or request.overrides}
    )
    record = Record(
        name=request.name,
        experiment=configs[0].data.name,
        params={"jobs": len(planned) or "unknown", "overrides": " ".join(request.overrides)},
        tags={
            "kind": "sweep",
            "sweep_fingerprint": fingerprint,
            "code_state": code.state,
            "mlflow.source.name": "poolwise.run",
            "mlflow.source.git.commit": code.commit,
        },
    )
    running = SweepError(f"sweep {request.name} is running already. Wait for it to end; what is done will be reused.")
    with held(outputs() / "locks" / fingerprint, otherwise=running):
        store.bury_dead(record.experiment, uri=uri)
        unfinished = _unfinished(record, uri=uri) if configs[0].reuse is not False else None
        if unfinished:
            terminal.say(f"continuing sweep {unfinished.run_id}")
        reopen = unfinished.run_id if unfinished else ""
        stack = ExitStack()
        parent = stack.enter_context(tracking.logged_run(record, uri=uri, outputs=outputs(), reopen=reopen))
        try:
            with stack:
                yield parent
        finally:  # when it was tried to send it
            if parent.is_waiting:
                terminal.say(*parent.what_it_waits_for())


def settled(parent: tracking.Run, launch: Callable[[], object]) -> str:
    """Launch; whatever happens, no child is left RUNNING. Returns why the launcher ended early, or nothing."""
    ended = ""
    try:
        launch()
    except Exception as error:  # a launcher raises when a worker dies; the account of the jobs follows all the same
        ended = f"the launcher ended early: {type(error).__name__}: {store.first_line(error)}"
        parent.write("failure/launcher.txt", scrub(traceback.format_exc()))
    finally:

        def running() -> list[Logged]:
            return [run for run in fits(parent) if run.status == "RUNNING"]

        gather(parent)
        settle(lambda: any(store.is_alive(run) and not store.is_mine(run) for run in running()))
        for run in running():
            with suppress(*store.OUTAGES):
                store.bury([run], uri=parent.uri, also_mine=True)
    return ended


def gather(parent: tracking.Run) -> None:
    """Send the jobs that wait for the store of their sweep; where they cannot be sent, let the sweep wait with them.

    Its account names the jobs by the ids that they have now; sent together with them, it is corrected.
    """
    if parent.is_waiting:
        return
    reason = store.outage(parent.uri)
    if not reason:
        parent.deliver()
        if spool.has_jobs_of(parent.run_id, uri=parent.uri, outputs=outputs()):
            reason = parent.lost or "it did not take all jobs"
    if reason:
        with suppress(TrackingError):  # then it says so when it ends
            parent.wait(reason)


def fits(parent: tracking.Run) -> list[Logged]:
    """The jobs of a sweep that became runs, finished ones first: as the store and as their folders tell it.

    A job may be in the spool while its sweep is not, and a store may have stopped to answer.
    """
    stored: list[Logged] = []
    with suppress(*store.OUTAGES):
        stored = [run for run in store.children(parent.run_id, uri=parent.uri) if "run_fingerprint" in run.tags]
    ids = {run.run_id for run in stored}
    told = [run for run in tracking.recorded(outputs(), sweep=parent.run_id) if run.run_id not in ids]
    return sorted([*stored, *told], key=lambda run: run.status != "FINISHED")


@contextmanager
def table(parent: tracking.Run, planned: Sequence[Planned]) -> Iterator[None]:
    """A live table of the jobs, on a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal or not planned:
        yield
        return
    began = time.time()
    with Live(_drawn(planned, {}), console=console, transient=True) as live:

        def refresh() -> None:
            live.update(_drawn(planned, tracking.states(outputs(), since=began)))

        with every(0.25, refresh, name="table"):
            yield


def conclude(parent: tracking.Run, planned: Sequence[Planned], configs: Sequence[Config], ended: str = "") -> None:
    """Account for every job, compare the runs, and raise if some are missing."""
    outcomes = account(parent, planned)
    parent.record.note = note(outcomes)
    parent.record.metrics |= {
        "jobs_finished": sum(each.status == "FINISHED" for each in outcomes),
        "jobs_reused": sum(each.status == "reused" for each in outcomes),
        "jobs_failed": sum(not each.is_done for each in outcomes),
    }
    done = [each.run for each in outcomes if each.is_done and each.run]
    parent.record.tags["members"] = ",".join(run.run_id for run in done)
    counts = parent.record.metrics
    terminal.say(
        f"sweep   {parent.run_id}: {counts['jobs_finished']} fitted, {counts['jobs_reused']} reused, "
        f"{counts['jobs_failed']} failed"
    )
    failed = [each for each in outcomes if not each.is_done]
    if failed or ended:
        raise SweepError("\n".join([*([ended] if ended else []), *(_why(each) for each in failed)]))
    terminal.say(words.browse())
    if configs[0].sweep.compare:
        for runs in _by_data(done):
            parent.record.note = _compared(parent, runs) + parent.record.note
        gather(parent)


def account(parent: tracking.Run, planned: Sequence[Planned]) -> list[Outcome]:
    """What became of every job."""
    children = fits(parent)
    if not planned:
        told: list[tuple[str, str, Logged | None]] = [(run.name, run.status, run) for run in reversed(children)]
        own_ids = {run.run_id for run in children}
        tags: dict[str, str] = {}
        with suppress(UnreachableError):
            tags = store.logged(parent.place_id, uri=parent.uri).tags
        for key, value in tags.items():  # jobs that made no run
            run_id = key.removeprefix("reused.")
            if run_id != key and run_id not in own_ids:
                twin = None
                with suppress(UnreachableError, UnknownRunError):
                    twin = store.logged(run_id, uri=parent.uri)
                told.append((value, "reused", twin))
            if key.startswith("refused."):
                told.append((value, "did not run", None))
        return [Outcome(number, *each) for number, each in enumerate(told)]
    outcomes = []
    for each in planned:
        own = [run for run in children if run.tags["run_fingerprint"] == each.run_fingerprint]
        if own:
            outcomes.append(Outcome(each.number, each.name, own[0].status, own[0]))
        elif (twin := _twin(each, uri=parent.uri)) or each.run_id:
            twin = twin or next((run for run in tracking.recorded(outputs()) if run.run_id == each.run_id), None)
            outcomes.append(Outcome(each.number, each.name, "reused", twin))
        else:
            outcomes.append(Outcome(each.number, each.name, "did not run", None))
    return outcomes


def note(outcomes: Sequence[Outcome]) -> str:
    """The jobs as a Markdown table."""
    lines = ["| job | name | status | elpd_loo | verdict | run |", "|--:|---|---|--:|---|---|"]
    for each in outcomes:
        elpd = f"{each.run.metrics['elpd_loo']:.2f}" if each.run and "elpd_loo" in each.run.metrics else ""
        verdict = each.run.tags.get("verdict", "") if each.run else ""
        run_id = each.run.run_id if each.run else ""
        lines.append(f"| {each.number} | {each.name} | {each.status} | {elpd} | {verdict} | {run_id} |")
    return "\n".join(lines) + "\n"


def _decide(record: Record, ingredients: dict[str, object], among: Sequence[Logged], *, uri: str) -> tuple[str, str]:
    """The run that a job is reused from, and what the list says of the job."""
    if twin := twins.finished(record, among):
        return twin.run_id, f"reused from run {twin.run_id} ({twin.tags.get('verdict', '')})"
    if twin := twins.with_same_draws(record, among):
        return "", f"analysed again from the draws of run {twin.run_id}"
    miss = twins.near_miss(record, ingredients, among, uri=uri)
    return "", f"fitted; {miss}" if miss else "fitted"


def _unfinished(record: Record, *, uri: str) -> Logged | None:
    """The newest sweep of the same jobs, if it did not finish."""
    where = f"tags.sweep_fingerprint = '{record.tags['sweep_fingerprint']}'"
    with suppress(UnreachableError):
        found = store.search(where, uri=uri, experiments=[record.experiment])
        return found[0] if found and found[0].status != "FINISHED" else None
    return None


def _twin(job: Planned, *, uri: str) -> Logged | None:
    where = f"tags.run_fingerprint = '{job.run_fingerprint}' and attributes.status = 'FINISHED'"
    with suppress(UnreachableError):
        return next(iter(store.search(where, uri=uri)), None)
    return None


def _why(outcome: Outcome) -> str:
    """A failed job in a line."""
    reason = outcome.run.tags.get("verdict_reasons", "") if outcome.run else ""
    where = f" (run {outcome.run.run_id})" if outcome.run else ""
    return f"job {outcome.number} {outcome.name}: {outcome.status}{where}{': ' + reason if reason else ''}"


def _by_data(runs: Sequence[Logged]) -> list[list[Logged]]:
    """The runs, parted by the data they were fitted to, where there are at least two."""
    parts: dict[str, list[Logged]] = {}
    for run in {run.run_id: run for run in runs}.values():
        parts.setdefault(run.tags.get("data_sha256", ""), []).append(run)
    return [part for part in parts.values() if len(part) > 1]


def _compared(parent: tracking.Run, runs: Sequence[Logged]) -> str:
    """The comparison of the runs, logged beside them; its ranked table, or why there is none, for the parent's note."""
    try:
        for run in runs:
            store.logged(run.run_id, uri=parent.uri)
    except (UnknownRunError, UnreachableError):
        why = f"some of the runs are in another store; python -m poolwise.compare --sweep {parent.run_id} does it later"
        terminal.say(f"not compared: {why}")
        return f"not compared: {why}\n\n"
    try:
        run_id = compare_runs(runs, uri=parent.uri, outputs=outputs(), parent=parent.run_id)
        return store.logged(run_id, uri=parent.uri).tags.get("mlflow.note.content", "") + "\n\n"
    except (ComparisonError, UnknownRunError, UnreachableError) as error:
        terminal.say(f"not compared: {error}")
        return f"not compared: {error}\n\n"


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
