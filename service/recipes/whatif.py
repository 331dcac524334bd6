"""What other limits would have decided on stored inspections, and what that says of escape and overkill.

The estimators stand in docs/quality-engineer.md. In short: inspections fall into three strata by what was
decided at the time. In the stratum PASS only random audits count as a sample - whoever opened another PASS
had a reason -, in REVIEW and REJECT everything that was reviewed does. Each reviewed inspection then stands
for its share of its stratum.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from models.anomaly import verdict_codes
from models.bundle import Thresholds
from service.recipes.intervals import Share, Stratum, plain_share, stratified_share

Float64 = NDArray[np.float64]
Codes = NDArray[np.int64]
VERDICTS = ("PASS", "REVIEW", "REJECT")
_PASS, _REVIEW, _REJECT = range(3)
_FEW = 0.5  # share of a stratum reviewed below which it is said that the rest may differ


@dataclass(frozen=True)
class Stored:
    """Finished inspections as columns, newest first."""

    ids: Sequence[str]
    scores: Float64  # calibrated
    decided: Codes  # index into VERDICTS: what was decided at the time
    audit: NDArray[np.bool_]  # a PASS drawn at random
    state: NDArray[np.str_]  # none, good, defective, unsure

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class StratumNote:
    """How much of what was decided in one way has been reviewed."""

    verdict: str
    inspections: int
    reviewed: int  # that count as a sample, with a decision good or defective
    weight: float | None  # inspections that one of them stands for; None without any


@dataclass(frozen=True)
class Estimate:
    """A share that needs reviewed inspections, or why there is none."""

    share: Share | None
    reason: str | None = None


@dataclass(frozen=True)
class WhatIf:
    """Limits against stored inspections."""

    inspections: int
    flips: dict[str, int]  # "PASS->REVIEW": how many
    flipping: NDArray[np.int64] = field(repr=False)  # rows, newest first
    passes: Share | None
    review_load: Share | None
    rejects: Share | None
    escape: Estimate
    overkill: Estimate
    strata: list[StratumNote]
    warnings: list[str]


def decide(scores: Float64, limits: Thresholds) -> Codes:
    """Calibrated scores `[N]` -> index into VERDICTS, as `models.anomaly.verdict` decides."""
    return verdict_codes(scores, limits.review, limits.reject)


def what_if(stored: Stored, old: Thresholds, new: Thresholds) -> WhatIf:
    """What `new` limits would decide where `old` ones do now."""
    before, after = decide(stored.scores, old), decide(stored.scores, new)
    flipping = np.flatnonzero(before != after)
    kinds = np.unique(len(VERDICTS) * before[flipping] + after[flipping], return_counts=True)
    sampled = sampled_rows(stored)
    count, notes = len(stored), _notes(stored, sampled)
    return WhatIf(
        inspections=count,
        flips={_kind(int(code)): int(number) for code, number in zip(*kinds, strict=True)},
        flipping=flipping,
        passes=plain_share(int((after == _PASS).sum()), count),
        review_load=plain_share(int((after == _REVIEW).sum()), count),
        rejects=plain_share(int((after == _REJECT).sum()), count),
        escape=_estimate(stored, sampled, "defective", after == _PASS),
        overkill=_estimate(stored, sampled, "good", after == _REJECT),
        strata=notes,
        warnings=_warnings(notes),
    )


def _kind(code: int) -> str:
    old, new = divmod(code, len(VERDICTS))
    return f"{VERDICTS[old]}->{VERDICTS[new]}"


def sampled_rows(stored: Stored) -> NDArray[np.bool_]:
    """Reviewed inspections that stand for their stratum."""
    definite = (stored.state == "good") | (stored.state == "defective")
    return np.asarray(definite & ((stored.decided != _PASS) | stored.audit))


def _estimate(stored: Stored, sampled: NDArray[np.bool_], state: str, hit: NDArray[np.bool_]) -> Estimate:
    strata = []
    for code, name in enumerate(VERDICTS):
        own = stored.decided == code
        some = own & sampled
        if own.any() and not some.any():
            what = "random PASS audit" if code == _PASS else f"{name}"
            return Estimate(None, f"no {what} of this span is reviewed: review some to get an estimate")
        base = some & (stored.state == state)
        strata.append(Stratum(int(own.sum()), int(some.sum()), int(base.sum()), int((base & hit).sum())))
    share = stratified_share(strata)
    return Estimate(share, None if share is not None else f"no reviewed inspection of this span is {state}")


def _notes(stored: Stored, sampled: NDArray[np.bool_]) -> list[StratumNote]:
    notes = []
    for code, name in enumerate(VERDICTS):
        own = stored.decided == code
        population, reviewed = int(own.sum()), int((own & sampled).sum())
        notes.append(StratumNote(name, population, reviewed, population / reviewed if reviewed else None))
    return notes


def _warnings(notes: Sequence[StratumNote]) -> list[str]:
    return [
        f"{note.reviewed} of {note.inspections} {note.verdict} are reviewed; the rest may differ"
        for note in notes[1:]
        if note.reviewed and note.reviewed < _FEW * note.inspections
    ]


@dataclass(frozen=True)
class Histogram:
    """Counts per bin of the calibrated score."""

    edges: list[float]
    good: list[int]
    defective: list[int]
    unreviewed: list[int]  # and unsure


def histogram(stored: Stored, bins: int) -> Histogram:
    """Scores of what people called good and defective, and of the rest, on common edges."""
    if not len(stored):
        return Histogram([], [], [], [])
    edges = np.histogram_bin_edges(stored.scores, bins)
    groups = [stored.state == "good", stored.state == "defective"]
    groups.append(~(groups[0] | groups[1]))
    counts = [np.histogram(stored.scores[group], edges)[0].tolist() for group in groups]
    return Histogram(edges.tolist(), *counts)
