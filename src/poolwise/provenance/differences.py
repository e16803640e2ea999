"""Two runs to their recorded differences, and whether each can change the draws."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from poolwise.config import leaves_of
from poolwise.provenance import fingerprints
from poolwise.provenance.stack import DRAW_LIBRARIES, STACK_OF_BITS
from poolwise.text import listed

NAMES = ("there", "here")  # location of a value: `0.2 there, 0.3 here`; also ("in 1a2b3c", "in 4d5e6f")
KINDS = ("data", "config", "code", "library", "device")
DRAW_SETTINGS = ("pooling", "likelihood", "prior", "sampler", "seed")
VERSIONS = ("python", *DRAW_LIBRARIES)
DEVICE_BITS = tuple(name for name in STACK_OF_BITS if name not in VERSIONS)
ABSENT = object()


@dataclass(frozen=True)
class RunInputs:
    """The recorded inputs of a run.

    Attributes
    ----------
    settings : the resolved config, nested
    data_sha256 : of the canonical cells
    code : the state of the source, as in `code.Code`
    files : file of the package -> sha256; the oldest runs recorded some of those that decide draws, or none
    libraries : installed distribution -> version, spelled as by `stack.versions_of`
    stack : as returned by `stack.stack`
    """

    settings: Mapping[str, Any]
    data_sha256: str
    code: str
    files: Mapping[str, str]
    libraries: Mapping[str, str]
    stack: Mapping[str, Any]


@dataclass(frozen=True)
class Difference:
    """One recorded difference between two runs: its kind, one of `KINDS`, and a line of text.

    Attributes
    ----------
    decides_draws : whether it can change the draws, or this cannot be excluded
    """

    kind: str
    text: str
    decides_draws: bool

    def __str__(self) -> str:
        """`code: model.py has changed`."""
        return f"{self.kind}: {self.text}"


def differences(one: RunInputs, other: RunInputs, *, names: tuple[str, str] = NAMES) -> list[Difference]:
    """All recorded differences, by kind; within a kind those that decide draws come first."""
    found = [
        *_data(one, other, names),
        *_settings(one, other, names),
        *_code(one, other, names),
        *_libraries(one, other, names),
        *_device(one, other, names),
    ]
    return sorted(found, key=lambda each: (KINDS.index(each.kind), not each.decides_draws))


def _data(one: RunInputs, other: RunInputs, names: tuple[str, str]) -> Iterator[Difference]:
    if one.data_sha256 != other.data_sha256:
        a, b = (run.data_sha256[:12] or "not recorded" for run in (one, other))
        yield Difference("data", f"the counts differ (data_sha256 {sides(a, b, names)})", True)


def _settings(one: RunInputs, other: RunInputs, names: tuple[str, str]) -> Iterator[Difference]:
    """The keys of the config that differ; `device` is compared with the stack, as actually used."""
    for key, a, b in unequal(flat(one.settings), flat(other.settings)):
        section = key.partition(".")[0]
        if section != "device":
            decides_draws = section in DRAW_SETTINGS and key != "sampler.checkpoint_every"
            kind = "data" if section == "data" else "config"
            yield Difference(kind, f"{key} is {sides(a, b, names)}", decides_draws)


def _code(one: RunInputs, other: RunInputs, names: tuple[str, str]) -> Iterator[Difference]:
    """The files that differ; if a run did not record all files, the states of the source."""
    are_whole = fingerprints.is_whole(one.files) and fingerprints.is_whole(other.files)
    common = one.files.keys() & other.files.keys()
    changed: dict[bool, list[str]] = {True: [], False: []}
    for name, a, b in sorted(unequal(one.files, other.files)):
        if are_whole or name in common:
            only = names[0] if b is ABSENT else names[1] if a is ABSENT else ""
            changed[fingerprints.decides_draws(name)].append(f"{name} (only {only})" if only else name)
    for decides_draws, files in changed.items():
        if files:
            text = f"{listed(files)} {'has' if len(files) == 1 else 'have'} changed"
            yield Difference("code", text, decides_draws)
    if are_whole or changed[True]:
        return
    is_open = not fingerprints.holds_draw_source(common)
    if one.code != other.code:
        yield Difference("code", sides(one.code, other.code, names), is_open)
    elif is_open and one.code.startswith("changed"):
        yield Difference("code", f"{one.code} in both runs; the changed files are not recorded", True)


def _libraries(one: RunInputs, other: RunInputs, names: tuple[str, str]) -> Iterator[Difference]:
    ours = ({name: run.stack.get(name, run.libraries.get(name, ABSENT)) for name in VERSIONS} for run in (one, other))
    deciding = [f"{name} {sides(a, b, names)}" for name, a, b in unequal(*ours)]
    if deciding:
        yield Difference("library", "; ".join(deciding), True)
    if one.libraries and other.libraries:
        moved = [each for each in sorted(unequal(one.libraries, other.libraries)) if each[0] not in VERSIONS]
        rest = [f"{name} {shown(a)} -> {shown(b)}" for name, a, b in moved]
        if rest:
            count = "1 other distribution differs" if len(rest) == 1 else f"{len(rest)} other distributions differ"
            yield Difference("library", f"{count}: {listed(rest)}", False)


def _device(one: RunInputs, other: RunInputs, names: tuple[str, str]) -> Iterator[Difference]:
    """The differences of the stacks except versions; the settings of the device, as actually used, come first."""
    a, b = ({**run.settings.get("device", {}), **run.stack} for run in (one, other))
    versions = {*VERSIONS, *one.libraries, *other.libraries} - {*DEVICE_BITS}
    keys = [key for key in {**a, **b} if key not in versions]
    for key in keys:
        if key in a and key in b:
            label = f"device.{key}" if key in one.settings.get("device", {}) else key
            for leaf, x, y in unequal(flat({label: a[key]}), flat({label: b[key]})):
                yield Difference("device", f"{leaf} is {sides(x, y, names)}", key in DEVICE_BITS)
    for place, recorded in zip(names, (a, b), strict=True):
        for decides_draws in (True, False):
            lost = [key for key in keys if key not in recorded and (key in DEVICE_BITS) == decides_draws]
            if lost:
                text = f"{listed(lost)} {'is' if len(lost) == 1 else 'are'} not recorded {place}"
                yield Difference("device", text, decides_draws)


def flat(nested: Mapping[str, Any]) -> dict[str, Any]:
    """The leaves under dotted keys, lists as tuples: a config that was written and read back has lists."""
    leaves = ((key, value) for key, value in leaves_of(nested) if not isinstance(value, Mapping))
    return {key: tuple(value) if isinstance(value, list) else value for key, value in leaves}


def unequal(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """The keys whose values differ, with both values; `ABSENT` if missing."""
    for key in dict.fromkeys([*one, *other]):
        a, b = one.get(key, ABSENT), other.get(key, ABSENT)
        if a != b:
            yield key, a, b


def sides(one: Any, other: Any, names: tuple[str, str]) -> str:
    """Two values, each with its location."""
    return f"{shown(one)} {names[0]}, {shown(other)} {names[1]}"


def shown(value: Any) -> str:
    """A value on one line, as in a config."""
    if value is ABSENT:
        return "absent"
    if isinstance(value, tuple):
        return f"[{', '.join(map(shown, value))}]"
    return "null" if value is None else " ".join(str(value).split()) or "empty"
