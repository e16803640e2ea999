"""`record.json`: the record of a run in its folder, before it is sent to a store."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Record:
    """`record.json` in the folder of a run.

    Attributes
    ----------
    progress : (step, milliseconds since the epoch, metrics) until the end; step is the number of draws so far
    dataset : name, digest and source of the data; empty for a run without data of its own
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
