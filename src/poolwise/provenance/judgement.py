"""Two runs to one judgement: bit-identical, statistically equal, or different, and why.

The rules, in order:

1. bit-identical: the digests of the draws are equal, whatever else differs.
2. different: the data or a setting that decides draws differs, however close the results are.
3. statistically equal: each of the K means, standard deviations and elpd_loo agrees within Monte Carlo error,

       z = (other - one) / sqrt(mcse_one^2 + mcse_other^2),    |z| <= `agreement.threshold(K)`,

   and both runs have converged; a run that has not converged is reported as the cause.
4. different: the cause is the first of code, libraries and device with a difference that decides draws.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from poolwise.checks.agreement import threshold
from poolwise.checks.conditions import limits
from poolwise.model.count_model import WITHOUT_MEAN
from poolwise.provenance.differences import NAMES, Difference, sides
from poolwise.text import NAMED, aligned, listed

BIT_IDENTICAL, EQUAL, DIFFERENT = "bit-identical", "statistically equal", "different"
SHOWN = 8  # rows of the printed table


@dataclass(frozen=True)
class RunResults:
    """The results of a run.

    Attributes
    ----------
    digests : as returned by `fingerprints.posterior_digests`: site -> sha256 of its draws, "all" -> of all together
    summary : as returned by `summary.summarise`
    elpd_loo, elpd_loo_mcse : NaN if unknown
    """

    digests: Mapping[str, str]
    summary: pd.DataFrame
    elpd_loo: float
    elpd_loo_mcse: float
    num_chains: int


@dataclass(frozen=True)
class Judgement:
    """How two runs compare, and why.

    Attributes
    ----------
    verdict : `BIT_IDENTICAL`, `EQUAL` or `DIFFERENT`
    cause : why the draws are not bit-identical, or cannot be judged; empty if bit-identical
    quantity, z, threshold : the quantity with the largest |z|; z is infinite if equality cannot be judged
    shifts : one row per quantity, largest |z| first: quantity, one, other, mcse (of the difference), z
    remarks : further remarks, one line each
    """

    verdict: str
    cause: str
    quantity: str
    z: float
    threshold: float
    shifts: pd.DataFrame
    remarks: tuple[str, ...]


def judge(
    one: RunResults, other: RunResults, differing: Sequence[Difference], *, names: tuple[str, str] = NAMES
) -> Judgement:
    """Judge two runs that differ in `differing`, by the rules in the docstring of this module."""
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


def lines(judgement: Judgement, *, names: tuple[str, str] = NAMES) -> list[str]:
    """The printed judgement: verdict, cause, remarks, and the largest shifts in units of MCSE."""
    remarks = [f"  {each}" for each in judgement.remarks]
    if judgement.verdict == BIT_IDENTICAL:
        return [f"{BIT_IDENTICAL}: all draws have the same sha256", *remarks]
    why = "cause" if judgement.verdict == DIFFERENT else "not bit-identical; cause"
    head = [f"{judgement.verdict}: {_largest(judgement)}", f"  {why}: {judgement.cause}"]
    return [*head, *remarks, *_table(judgement.shifts, names)]


def _verdict(
    one: RunResults, other: RunResults, differing: Sequence[Difference], *, agrees: bool, names: tuple[str, str]
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
    """The first difference of the first of these kinds with a difference."""
    wanted = [each for each in differing if each.kind in kinds and each.decides_draws == decides_draws]
    return min(wanted, key=lambda each: kinds.index(each.kind), default=None)


def _unexplained(differing: Sequence[Difference]) -> str:
    """The cause if no difference is known to decide draws."""
    possible = _first(differing, "code", "library", decides_draws=False)
    if possible is not None:
        return f"{possible} (possible cause only: it should not change draws)"
    what = "no recorded input that decides draws" if differing else "no recorded input"
    return f"{what} differs; the guarantee of bit-identity is violated here"


def _unconverged(run: RunResults, name: str) -> str:
    """The first limit on R-hat and ESS that a run fails."""
    failures = (limit.failure(run.summary, whose=f" {name}") for limit in limits(run.num_chains))
    return next(filter(None, failures), "")


def _shifts(one: RunResults, other: RunResults) -> pd.DataFrame:
    """The results of both runs by quantity, largest |z| first."""
    common = [name not in WITHOUT_MEAN and name in other.summary.index for name in one.summary.index]
    names = one.summary.index[common]
    a, b = _quantities(one.summary.loc[names], one), _quantities(other.summary.loc[names], other)
    mcse = (a["mcse"] ** 2 + b["mcse"] ** 2) ** 0.5
    table = pd.DataFrame({"one": a["value"], "other": b["value"], "mcse": mcse, "z": _z(b["value"] - a["value"], mcse)})
    return table.rename_axis("quantity").sort_values("z", key=abs, ascending=False, kind="stable").reset_index()


def _quantities(summary: pd.DataFrame, run: RunResults) -> pd.DataFrame:
    """Value and Monte Carlo error of each mean and sd of a summary, and of a run's elpd_loo."""
    parts = [
        pd.DataFrame({"value": summary[moment], "mcse": summary[f"mcse_{moment}"]}).rename(f"{moment} of {{}}".format)
        for moment in ("mean", "sd")
    ]
    elpd = pd.DataFrame({"value": run.elpd_loo, "mcse": run.elpd_loo_mcse}, index=["elpd_loo"])
    return pd.concat([*parts, elpd]).astype(float)


def _z(shift: pd.Series, mcse: pd.Series) -> pd.Series:
    """Shifts in units of their MCSE: 0 if there is no shift; infinite if shift or MCSE is not finite, or MCSE is 0."""
    is_known = np.isfinite(shift) & np.isfinite(mcse)
    return (shift / mcse.where(is_known, 1.0)).where(is_known, np.inf).where(shift != 0, 0.0)


def _remarks_on_findings(
    one: RunResults, other: RunResults, shifts: pd.DataFrame, verdict: str, names: tuple[str, str]
) -> Iterator[str]:
    """Remarks on the results besides the verdict."""
    for name, mine, its in ((names[0], one, other), (names[1], other, one)):
        alone = [each for each in mine.summary.index if each not in its.summary.index]
        if alone:
            yield f"parameters only {name}: {listed(alone)}"
    unknown = shifts["quantity"][~np.isfinite(shifts[["one", "other", "mcse"]]).all(axis=1)]
    if len(unknown):
        yield f"not comparable, because a value or its Monte Carlo error is missing: {listed(unknown)}"
    if verdict != BIT_IDENTICAL:
        same = [site for site, digest in one.digests.items() if other.digests.get(site) == digest]
        if same:
            yield f"bit-identical nevertheless: the draws of {listed(same)}"
    elif not np.isclose(one.elpd_loo, other.elpd_loo, rtol=1e-9, atol=0, equal_nan=True):
        yield f"from the same draws, elpd_loo is {sides(one.elpd_loo, other.elpd_loo, names)}"


def _remarks_on_differences(differing: Sequence[Difference], verdict: str, cause: str) -> Iterator[str]:
    """The differences that are not the cause; at most `NAMED` of each sort."""
    others = [each for each in differing if not cause.startswith(str(each))]
    deciding = "{}, without changing draws" if verdict == BIT_IDENTICAL else "also {}"
    for decides_draws, form in ((True, deciding), (False, "{} (decides no draw)")):
        each_line = [form.format(each) for each in others if each.decides_draws == decides_draws]
        yield from each_line[:NAMED]
        if len(each_line) > NAMED:
            yield f"and {len(each_line) - NAMED} more that {'decide draws' if decides_draws else 'decide no draws'}"


def _largest(judgement: Judgement) -> str:
    """The largest shift in words."""
    if not math.isfinite(judgement.z):
        return f"{judgement.quantity} cannot be compared with its Monte Carlo error"
    side = "within" if abs(judgement.z) <= judgement.threshold else "beyond"
    return (
        f"the largest of {len(judgement.shifts)} shifts is {judgement.z:+.2f} MCSE ({judgement.quantity}), "
        f"{side} {judgement.threshold:.2f}"
    )


def _table(shifts: pd.DataFrame, names: tuple[str, str]) -> list[str]:
    """The largest shifts in aligned columns; values to the second digit of their MCSE."""
    rows = [("", *(name.removeprefix("in ") for name in names), "MCSE", "shift / MCSE")]
    for quantity, one, other, mcse, z in shifts.head(SHOWN).itertuples(index=False):
        digits = 1 - math.floor(math.log10(mcse)) if math.isfinite(mcse) and mcse > 0 else 6
        rows.append((quantity, *(f"{each:.{min(max(digits, 0), 12)}f}" for each in (one, other, mcse)), f"{z:+.2f}"))
    printed = [f"  {line}" for line in aligned(rows, left={0})]
    return printed + ([f"  and {len(shifts) - SHOWN} smaller shifts"] if len(shifts) > SHOWN else [])
