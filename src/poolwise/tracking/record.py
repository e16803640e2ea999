"""`record.json`: what a run says of itself, before it goes anywhere."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass


@dataclass
class Record:
    """`record.json` in the folder of a run.

    Attributes
    ----------
    progress : (step, milliseconds of the epoch, metrics) while sampling; the step is the number of draws so far
    dataset : name, digest and source of the data; empty for a run that has none of its own
    store, run_id : public address of the store that the run is in now, and its id there
    """

    name: str
    experiment: str
    params: dict[str, Any]
    tags: dict[str, str]
    dataset: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    progress: list[tuple[int, int, dict[str, float]]] = field(default_factory=list)
    note: str = ""
    status: str = "RUNNING"
    store: str = ""
    run_id: str = ""
