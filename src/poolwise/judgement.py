"""Two runs to one judgement: bit-identical, statistically equal, or different, and why.

Judged in this order:

1. bit-identical: the digests of the draws are equal, whatever else differs.
2. different: the data or a setting that decides draws differs, however close the numbers are.
3. statistically equal: each of the K means, standard deviations and elpd_loo agrees within Monte Carlo error,

       z = (other - one) / sqrt(mcse_one^2 + mcse_other^2),    |z| <= max(4, Phi^-1(1 - 0.0005 / K)),

   and both runs have converged; a run that has not is a cause of its own. Runs that differ by nothing but Monte Carlo
   error are told apart in at most one of a thousand comparisons (Bonferroni; normal errors).
4. different: the cause is the first of code, libraries and device that differs in what decides draws.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm

from poolwise.checks import ESS_PER_CHAIN, NO_MEAN, R_HAT_MAX
from poolwise.provenance import DRAW_LIBRARIES, DRAW_MODULES, STACK_OF_BITS

BIT_IDENTICAL, EQUAL, DIFFERENT = "bit-identical", "statistically equal", "different"
NAMES = ("there", "here")  # where a value was found: `0.2 there, 0.3 here`; also ("in 1a2b3c", "in 4d5e6f")
LEAST_THRESHOLD, TAIL = 4.0, 0.0005

KINDS = ("data", "config", "code", "library", "device")
DRAW_SETTINGS = ("pooling", "likelihood", "prior", "sampler", "seed")
VERSIONS = ("python", *DRAW_LIBRARIES)
DEVICE_BITS = tuple(name for name in STACK_OF_BITS if name not in VERSIONS)
NAMED, SHOWN = 5, 8  # names in a sentence; rows of the printed table
ABSENT = object()


@dataclass(frozen=True)
class Facts:
    """What decided a run.

    Attributes
    ----------
    settings : the resolved config, nested
    data_sha256 : of the canonical cells
    code : the state of the source, as `provenance.Code` has it
    files : file of the package -> sha256; older runs recorded some of `DRAW_MODULES` only, or none
    libraries : distribution -> version, of all that are installed, spelled as `provenance.versions_of` does
    stack : as `provenance.stack` gives it
    """

    settings: Mapping[str, Any]
    data_sha256: str
    code: str
    files: Mapping[str, str]
    libraries: Mapping[str, str]
    stack: Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What a run found.

    Attributes
    ----------
    digests : as `provenance.posterior_digests` gives them: site -> sha256 of its draws, "all" -> of all together
    summary : as `checks.summarise` gives it
    elpd_loo, elpd_loo_mcse : not a number where not known
    """

    digests: Mapping[str, str]
    summary: pd.DataFrame
    elpd_loo: float
    elpd_loo_mcse: float
    num_chains: int


@dataclass(frozen=True)
class Difference:
    """One thing recorded that differs between two runs: its kind, one of `KINDS`, and a line that names it.

    Attributes
    ----------
    decides_draws : whether it can move a draw, or cannot be excluded to
    """

    kind: str
    text: str
    decides_draws: bool

    def __str__(self) -> str:
        """`code: model.py has changed`."""
        return f"{self.kind}: {self.text}"


@dataclass(frozen=True)
class Judgement:
    """How two runs compare, and why.

    Attributes
    ----------
    verdict : `BIT_IDENTICAL`, `EQUAL` or `DIFFERENT`
    cause : why the draws are not the same bits, or why they cannot be judged; empty if bit-identical
    quantity, z, threshold : the quantity with the largest |z|; z is infinite if it cannot be called equal
    shifts : a row a quantity, the largest |z| first: quantity, one, other, mcse (of the difference), z
    remarks : what else is to be known, a line each
    """

    verdict: str
    cause: str
    quantity: str
    z: float
    threshold: float
    shifts: pd.DataFrame
    remarks: tuple[str, ...]


def differences(one: Facts, other: Facts, *, names: tuple[str, str] = NAMES) -> list[Difference]:
    """Everything recorded that differs, by kind; within a kind what decides draws comes first."""
    found = [
        *_data(one, other, names),
        *_settings(one, other, names),
        *_code(one, other, names),
        *_libraries(one, other, names),
        *_device(one, other, names),
    ]
    return sorted(found, key=lambda each: (KINDS.index(each.kind), not each.decides_draws))


def judge(
    one: Outcome, other: Outcome, differing: Sequence[Difference], *, names: tuple[str, str] = NAMES
) -> Judgement:
    """The judgement of two runs that differ in `differing`, in the order at the head of this module."""
    shifts = _shifts(one, other)
    limit = threshold(len(shifts))
    unmatched = one.summary.index.symmetric_difference(other.summary.index)
    agrees = unmatched.empty and len(shifts) > 1 and bool((shifts["z"].abs() <= limit).all())
    verdict, cause = _verdict(one, other, differing, agrees=agrees, names=names)
    return Judgement(
        verdict=verdict,
        cause=cause,
        quantity=str(shifts["quantity"].iloc[0]),
        z=float(shifts["z"].iloc[0]),
        threshold=limit,
        shifts=shifts,
        remarks=(
            *_remarks_on_findings(one, other, shifts, verdict, names),
            *_remarks_on_differences(differing, verdict, cause),
        ),
    )


def threshold(num_quantities: int) -> float:
    """The largest |z| of so many quantities that Monte Carlo error explains."""
    return max(LEAST_THRESHOLD, float(norm.isf(TAIL / num_quantities)))


def lines(judgement: Judgement, *, names: tuple[str, str] = NAMES) -> list[str]:
    """The judgement as it is printed: the verdict, the cause, remarks, and the largest shifts in MCSE units."""
    remarks = [f"  {each}" for each in judgement.remarks]
    if judgement.verdict == BIT_IDENTICAL:
        return [f"{BIT_IDENTICAL}: all draws have the same sha256", *remarks]
    why = "cause" if judgement.verdict == DIFFERENT else "not bit-identical; cause"
    head = [f"{judgement.verdict}: {_largest(judgement)}", f"  {why}: {judgement.cause}"]
    return [*head, *remarks, *_table(judgement.shifts, names)]


def _verdict(
    one: Outcome, other: Outcome, differing: Sequence[Difference], *, agrees: bool, names: tuple[str, str]
) -> tuple[str, str]:
    """The verdict and its cause."""
    if one.digests.get("all") and one.digests["all"] == other.digests.get("all"):
        return BIT_IDENTICAL, ""
    wanted = _first(differing, "data", "config")
    if wanted is not None:
        return DIFFERENT, str(wanted)
    unconverged = [_unconverged(run, name) for run, name in zip((one, other), names, strict=True)]
    if any(unconverged):
        return DIFFERENT, f"not converged: {'; '.join(filter(None, unconverged))}"
    moved = _first(differing, "code", "library", "device")
    return EQUAL if agrees else DIFFERENT, _unexplained(differing) if moved is None else str(moved)


def _first(differing: Sequence[Difference], *kinds: str, decides_draws: bool = True) -> Difference | None:
    """The first difference of the first of these kinds that has one."""
    wanted = [each for each in differing if each.kind in kinds and each.decides_draws == decides_draws]
    return min(wanted, key=lambda each: kinds.index(each.kind), default=None)


def _unexplained(differing: Sequence[Difference]) -> str:
    """The cause where nothing differs that is known to decide draws."""
    possible = _first(differing, "code", "library", decides_draws=False)
    if possible is not None:
        return f"{possible} (possible only: it should move no draw)"
    what = "nothing that is recorded and decides draws" if differing else "nothing that is recorded"
    return f"{what} differs; the promise of bit-identity is broken here"


def _unconverged(run: Outcome, name: str) -> str:
    """The first condition of the gate on R-hat and ESS that a run misses; what is not a number misses it."""
    least = ESS_PER_CHAIN * run.num_chains
    conditions = [
        ("r_hat", "R-hat", R_HAT_MAX, 1),
        ("ess_bulk", "bulk ESS", least, -1),
        ("ess_tail", "tail ESS", least, -1),
    ]
    for column, label, limit, sign in conditions:
        excess = sign * (run.summary[column] - limit)
        failed = excess[~(excess <= 0)].fillna(math.inf)
        if not failed.empty:
            worst = failed.index[int(failed.to_numpy().argmax())]
            value = format(run.summary[column][worst], ".3f" if sign > 0 else ".0f")
            more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
            return f"{label} of {worst} is {value} {name}, {'above' if sign > 0 else 'below'} {limit:g}{more}"
    return ""


def _shifts(one: Outcome, other: Outcome) -> pd.DataFrame:
    """What both runs found, quantity by quantity, the largest |z| first."""
    common = [name not in NO_MEAN and name in other.summary.index for name in one.summary.index]
    names = one.summary.index[common]
    a, b = _quantities(one.summary.loc[names], one), _quantities(other.summary.loc[names], other)
    mcse = (a["mcse"] ** 2 + b["mcse"] ** 2) ** 0.5
    table = pd.DataFrame({"one": a["value"], "other": b["value"], "mcse": mcse, "z": _z(b["value"] - a["value"], mcse)})
    return table.rename_axis("quantity").sort_values("z", key=abs, ascending=False, kind="stable").reset_index()


def _quantities(summary: pd.DataFrame, run: Outcome) -> pd.DataFrame:
    """Value and Monte Carlo error of each mean and sd of a summary, and of a run's elpd_loo."""
    parts = [
        pd.DataFrame({"value": summary[moment], "mcse": summary[f"mcse_{moment}"]}).rename(f"{moment} of {{}}".format)
        for moment in ("mean", "sd")
    ]
    elpd = pd.DataFrame({"value": run.elpd_loo, "mcse": run.elpd_loo_mcse}, index=["elpd_loo"])
    return pd.concat([*parts, elpd]).astype(float)


def _z(shift: pd.Series, mcse: pd.Series) -> pd.Series:
    """Shifts in units of their error: none is 0; infinite where shift or error is no number, or the error is 0."""
    is_known = np.isfinite(shift) & np.isfinite(mcse)
    return (shift / mcse.where(is_known, 1.0)).where(is_known, np.inf).where(shift != 0, 0.0)


def _data(one: Facts, other: Facts, names: tuple[str, str]) -> Iterator[Difference]:
    if one.data_sha256 != other.data_sha256:
        a, b = (run.data_sha256[:12] or "not recorded" for run in (one, other))
        yield Difference("data", f"the counts differ (data_sha256 {_sides(a, b, names)})", True)


def _settings(one: Facts, other: Facts, names: tuple[str, str]) -> Iterator[Difference]:
    """The keys of the config that differ; `device` is judged with the stack, as it was really used."""
    for key, a, b in _unequal(_flat(one.settings), _flat(other.settings)):
        section = key.partition(".")[0]
        if section != "device":
            decides_draws = section in DRAW_SETTINGS and key != "sampler.checkpoint_every"
            kind = "data" if section == "data" else "config"
            yield Difference(kind, f"{key} is {_sides(a, b, names)}", decides_draws)


def _code(one: Facts, other: Facts, names: tuple[str, str]) -> Iterator[Difference]:
    """The files that differ; where a run did not record them all, the states of the source."""
    is_whole = all(set(run.files) - set(DRAW_MODULES) for run in (one, other))
    common = one.files.keys() & other.files.keys()
    changed: dict[bool, list[str]] = {True: [], False: []}
    for name, a, b in sorted(_unequal(one.files, other.files)):
        if is_whole or name in common:
            only = names[0] if b is ABSENT else names[1] if a is ABSENT else ""
            changed[name in DRAW_MODULES].append(f"{name} (only {only})" if only else name)
    for decides_draws, files in changed.items():
        if files:
            text = f"{_listed(files)} {'has' if len(files) == 1 else 'have'} changed"
            yield Difference("code", text, decides_draws)
    if is_whole or changed[True]:
        return
    is_open = not common >= set(DRAW_MODULES)
    if one.code != other.code:
        yield Difference("code", _sides(one.code, other.code, names), is_open)
    elif is_open and one.code.startswith("changed"):
        yield Difference("code", f"{one.code} in both runs, and which files is not recorded", True)


def _libraries(one: Facts, other: Facts, names: tuple[str, str]) -> Iterator[Difference]:
    ours = ({name: run.stack.get(name, run.libraries.get(name, ABSENT)) for name in VERSIONS} for run in (one, other))
    moved = [f"{name} {_sides(a, b, names)}" for name, a, b in _unequal(*ours)]
    if moved:
        yield Difference("library", "; ".join(moved), True)
    if one.libraries and other.libraries:
        unequal = sorted(_unequal(one.libraries, other.libraries))
        rest = [f"{name} {_shown(a)} -> {_shown(b)}" for name, a, b in unequal if name not in VERSIONS]
        if rest:
            count = "1 other distribution differs" if len(rest) == 1 else f"{len(rest)} other distributions differ"
            yield Difference("library", f"{count}: {_listed(rest)}", False)


def _device(one: Facts, other: Facts, names: tuple[str, str]) -> Iterator[Difference]:
    """What differs in the stack but versions; the settings of the device come first, as they were really used."""
    a, b = ({**run.settings.get("device", {}), **run.stack} for run in (one, other))
    versions = {*VERSIONS, *one.libraries, *other.libraries} - {*DEVICE_BITS}
    keys = [key for key in {**a, **b} if key not in versions]
    for key in keys:
        if key in a and key in b:
            label = f"device.{key}" if key in one.settings.get("device", {}) else key
            for leaf, x, y in _unequal(_flat({label: a[key]}), _flat({label: b[key]})):
                yield Difference("device", f"{leaf} is {_sides(x, y, names)}", key in DEVICE_BITS)
    for place, recorded in zip(names, (a, b), strict=True):
        for decides_draws in (True, False):
            lost = [key for key in keys if key not in recorded and (key in DEVICE_BITS) == decides_draws]
            if lost:
                text = f"{_listed(lost)} {'is' if len(lost) == 1 else 'are'} not recorded {place}"
                yield Difference("device", text, decides_draws)


def _remarks_on_findings(
    one: Outcome, other: Outcome, shifts: pd.DataFrame, verdict: str, names: tuple[str, str]
) -> Iterator[str]:
    """What the findings themselves show beside the verdict."""
    for name, mine, its in ((names[0], one, other), (names[1], other, one)):
        alone = [each for each in mine.summary.index if each not in its.summary.index]
        if alone:
            yield f"parameters that are only {name}: {_listed(alone)}"
    unknown = shifts["quantity"][~np.isfinite(shifts[["one", "other", "mcse"]]).all(axis=1)]
    if len(unknown):
        yield f"not comparable, for a value or its Monte Carlo error is missing: {_listed(unknown)}"
    if verdict != BIT_IDENTICAL:
        same = [site for site, digest in one.digests.items() if other.digests.get(site) == digest]
        if same:
            yield f"bit-identical all the same: the draws of {_listed(same)}"
    elif not np.isclose(one.elpd_loo, other.elpd_loo, rtol=1e-9, atol=0, equal_nan=True):
        yield f"from the same draws, elpd_loo is {_sides(one.elpd_loo, other.elpd_loo, names)}"


def _remarks_on_differences(differing: Sequence[Difference], verdict: str, cause: str) -> Iterator[str]:
    """The differences that are not the cause; of each sort at most `NAMED`."""
    others = [each for each in differing if not cause.startswith(str(each))]
    deciding = "{}, without moving a draw" if verdict == BIT_IDENTICAL else "also {}"
    for decides_draws, form in ((True, deciding), (False, "{} (decides no draw)")):
        each_line = [form.format(each) for each in others if each.decides_draws == decides_draws]
        yield from each_line[:NAMED]
        if len(each_line) > NAMED:
            yield f"and {len(each_line) - NAMED} more that {'decide draws' if decides_draws else 'decide none'}"


def _largest(judgement: Judgement) -> str:
    """The largest shift in words."""
    if not math.isfinite(judgement.z):
        return f"{judgement.quantity} cannot be held against Monte Carlo error"
    side = "within" if abs(judgement.z) <= judgement.threshold else "beyond"
    return (
        f"the largest of {len(judgement.shifts)} shifts is {judgement.z:+.2f} MCSE ({judgement.quantity}), "
        f"{side} {judgement.threshold:.2f}"
    )


def _table(shifts: pd.DataFrame, names: tuple[str, str]) -> list[str]:
    """The largest shifts in aligned columns; values to the second digit of their error."""
    rows = [("", *(name.removeprefix("in ") for name in names), "MCSE", "shift / MCSE")]
    for quantity, one, other, mcse, z in shifts.head(SHOWN).itertuples(index=False):
        digits = 1 - math.floor(math.log10(mcse)) if math.isfinite(mcse) and mcse > 0 else 6
        rows.append((quantity, *(f"{each:.{min(max(digits, 0), 12)}f}" for each in (one, other, mcse)), f"{z:+.2f}"))
    first, *others = (max(map(len, column)) for column in zip(*rows, strict=True))
    printed = [
        "  ".join([f"  {row[0]:<{first}}", *(f"{cell:>{width}}" for cell, width in zip(row[1:], others, strict=True))])
        for row in rows
    ]
    return printed + ([f"  and {len(shifts) - SHOWN} smaller shifts"] if len(shifts) > SHOWN else [])


def _flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves under dotted keys; a list is a tuple, as a config that was written and read again has lists."""
    leaves: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            leaves |= _flat(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = tuple(value) if isinstance(value, list) else value
    return leaves


def _unequal(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """The keys whose values differ, with both; `ABSENT` where there is none."""
    for key in dict.fromkeys([*one, *other]):
        a, b = one.get(key, ABSENT), other.get(key, ABSENT)
        if a != b:
            yield key, a, b


def _sides(one: Any, other: Any, names: tuple[str, str]) -> str:
    return f"{_shown(one)} {names[0]}, {_shown(other)} {names[1]}"


def _shown(value: Any) -> str:
    """A value on one line, as a config has it."""
    if value is ABSENT:
        return "absent"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_shown, value))}]"
    return "null" if value is None else " ".join(str(value).split()) or "empty"


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
