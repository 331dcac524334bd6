"""The gate's criteria: what a candidate must not be worse at than the model it is to replace.

Confirmed parts are what people were shown, so they are harder than the line's traffic: shares of them compare
two models, and are no estimates of the line's own rates.
"""

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats  # type: ignore[import-untyped]

from models.snapshot import proves_something
from trainer.exam import PASS, REJECT, REVIEW, Both, Said, Side, Timing
from trainer.export import TOLERANCE
from trainer.recipe import Calibration

Float64 = NDArray[np.float64]

ALPHA = 0.05
"""Of the one-sided sign test on the golden set, and outside of the intervals."""
PSI_LIMIT = 0.25
"""Population-stability index above which two distributions are taken for different ones, by convention."""
_BINS = 10
_PER_BIN = 10  # images at least


@dataclass(frozen=True)
class Criterion:
    """One question to the candidate; `passed` is None where nothing could be asked."""

    name: str
    title: str
    rule: str
    passed: bool | None
    why: str
    value: float | None = None
    limit: float | None = None
    unit: Literal["images", "share", "index", "difference", "ratio"] = "images"
    detail: dict[str, Any] = field(default_factory=dict)


def golden(good: Both, defective: Both, escapes: int, least: int) -> Criterion:
    """No more errors on confirmed parts than the active model makes, beyond what chance allows.

    Errors are good parts rejected and defective ones passed. Parts that the two judge alike say nothing; of
    the others, about half would speak against the candidate if it were as good (sign test, McNemar 1947).
    """
    title = ("golden", "Golden set", "no more errors on confirmed parts than the active model makes")
    total = len(good.paths) + len(defective.paths)
    if not proves_something(len(good.paths), len(defective.paths), escapes, least):
        why = (
            f"{len(good.paths)} confirmed good and {len(defective.paths)} defective parts prove nothing: at "
            f"least {least} are needed, of both kinds; review some, or set --least-golden"
        )
        return Criterion(*title, False, why, float(total), float(least))
    new = np.concatenate([good.candidate.verdicts == REJECT, defective.candidate.verdicts == PASS])
    old = np.concatenate([good.active.verdicts == REJECT, defective.active.verdicts == PASS])
    worse, better = int((new & ~old).sum()), int((old & ~new).sum())
    allowed = chance_allows(worse + better)
    why = (
        f"{int(new.sum())} errors on {total} parts, the active model {int(old.sum())}; of {worse + better} "
        f"judged differently {worse} speak against the candidate, chance allows {allowed}"
    )
    paths = [*good.paths, *defective.paths]
    detail = {
        "good": len(good.paths),
        "defective": len(defective.paths),
        "errors": int(new.sum()),
        "active_errors": int(old.sum()),
        "worse": [paths[row].name for row in np.flatnonzero(new & ~old)],
        "better": [paths[row].name for row in np.flatnonzero(old & ~new)],
    }
    return Criterion(*title, worse <= allowed, why, float(worse), float(allowed), detail=detail)


def chance_allows(different: int) -> int:
    """How many of so many fair coins may fall one way before that is rarer than ALPHA."""
    most = different
    while most and stats.binom.sf(most - 1, different, 0.5) < ALPHA:
        most -= 1
    return most


def escapes(found: Both) -> Criterion:
    """Of the defects that were ever missed, no more pass than the active model lets pass: not one."""
    title = ("escapes", "Escape set", "of the defects ever missed, not one more passes")
    if not found.paths:
        return Criterion(*title, True, "no missed defect was ever reported", 0.0, 0.0)
    new, old = found.candidate.verdicts == PASS, found.active.verdicts == PASS
    missed, limit = int(new.sum()), int(old.sum())
    why = f"{missed} of {len(found.paths)} pass, {limit} under the active model"
    detail = {
        "images": len(found.paths),
        "newly_missed": [found.paths[row].name for row in np.flatnonzero(new & ~old)],
        "newly_found": [found.paths[row].name for row in np.flatnonzero(old & ~new)],
    }
    return Criterion(*title, missed <= limit, why, float(missed), float(limit), detail=detail)


def good_parts(name: str, good: Both, candidate: Side) -> Criterion:
    """`overkill`, the share of confirmed good parts rejected, or `review_load`, that sent to a person.

    It may reach the recipe's target, or the upper end of the active model's 95 % interval on the same parts.
    """
    which, verb = (REJECT, "rejected") if name == "overkill" else (REVIEW, "sent to review")
    title = (name, name.replace("_", " ").capitalize(), f"confirmed good parts {verb}")
    if not good.paths:
        return Criterion(*title, None, "no part was confirmed good")
    rates = Calibration.model_validate(candidate.bundle.manifest.recipe.get("calibration", {}))
    target = rates.reject_rate if name == "overkill" else rates.review_rate
    count = len(good.paths)
    new, old = ((side.verdicts == which).sum() for side in (good.candidate, good.active))
    low, high = interval(int(new), count)
    active_low, active_high = interval(int(old), count)
    limit = max(target, active_high)
    why = (
        f"{new} of {count} {verb}, 95 % interval {low:.1%} to {high:.1%}; {old} by the active model. "
        f"Allowed: the end of its interval, {active_high:.1%}, or the target, {target:.1%}"
    )
    detail = {
        "interval": [low, high],
        "active": old / count,
        "active_interval": [active_low, active_high],
        "target": target,
        "images": count,
    }
    share = float(new / count)
    return Criterion(*title, share <= limit, why, share, limit, "share", detail)


def interval(hits: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % score interval (Wilson 1927)."""
    found = stats.binomtest(hits, count).proportion_ci(1 - ALPHA, method="wilson")
    return float(found.low), float(found.high)


def drift(recent: Both, candidate: Side, active: Side) -> Criterion:
    """Scores of both models on the same recent images lie alike, or else it is the active one's that moved.

    A line that drifts is what retraining is for: there the candidate's scores must lie as its calibration
    says, and the active model's not as its own does.
    """
    title = ("drift", "Score drift", "both models' scores on recent images lie alike")
    if not recent.paths:
        return Criterion(*title, None, "no recent images: name a training set with --export")
    found, limit = psi(recent.active.calibrated, recent.candidate.calibrated)
    own, settled = {}, {}
    for name, side, said in (("candidate", candidate, recent.candidate), ("active", active, recent.active)):
        own[name], own_limit = psi_to_own(side, said)
        settled[name] = own[name] <= own_limit
    detail: dict[str, Any] = {"own": own, "images": len(recent.paths), "skipped": len(recent.skipped)}
    for name, said in (("candidate", recent.candidate), ("active", recent.active)):
        shares = np.bincount(said.verdicts, minlength=3) / len(recent.paths)
        detail[name] = dict(zip(("PASS", "REVIEW", "REJECT"), shares.tolist(), strict=True))
    why = f"PSI {found:.2f} on {len(recent.paths)} images; {limit:.2f} is the same, with what chance adds"
    passed = found <= limit
    if not passed:
        passed = settled["candidate"] and not settled["active"]
        moved = "the line has moved away from" if passed else "and not because the line has left"
        why += (
            f": it is more, {moved} the active model's calibration (PSI to its own: candidate "
            f"{own['candidate']:.2f}, active {own['active']:.2f})"
        )
    return Criterion(*title, bool(passed), why, found, limit, "index", detail)


def psi_to_own(side: Side, said: Said) -> tuple[float, float]:
    """As `psi`, of what a model says against the scores it was calibrated on."""
    score = side.calibration.score
    scores = [score.calibrate(float(raw)) for raw in side.bundle.training_scores(side.profile)]
    return psi(np.array(scores), said.calibrated)


def psi(expected: Float64, found: Float64) -> tuple[float, float]:
    """Population-stability index of `found` against quantile bins of `expected`, and its limit.

    Without any difference it is about chi-squared over the images (Yurdakul 2018): in small samples chance
    alone reaches PSI_LIMIT, so the limit is never below chance's 95 % quantile.
    """
    expected, found = np.nan_to_num(expected, nan=np.inf), np.nan_to_num(found, nan=np.inf)
    bins = int(min(_BINS, max(2, min(len(expected), len(found)) // _PER_BIN)))
    edges = np.unique(np.quantile(expected, np.linspace(0, 1, bins + 1)[1:-1], method="nearest"))
    counts = [
        np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1) + 0.5
        for values in (expected, found)
    ]
    p, q = (count / count.sum() for count in counts)
    chance = stats.chi2.ppf(1 - ALPHA, len(edges)) * (1 / len(expected) + 1 / len(found))
    return float(np.sum((p - q) * np.log(p / q))), max(PSI_LIMIT, float(chance))


def parity(difference: float) -> Criterion:
    """The exported networks say what the trained ones say, on images of this line."""
    why = f"largest difference of ONNX Runtime and torch on golden images {difference:.1e}"
    passed = math.isfinite(difference) and difference <= TOLERANCE
    rule = "the exported network says what the trained one does"
    return Criterion("parity", "Parity", rule, passed, why, difference, TOLERANCE, "difference")


def latency(timing: Timing, limit: float) -> Criterion:
    """The candidate's time per image over the active model's, measured turn about in one process."""
    why = (
        f"{timing.candidate_ms:.1f} ms an image, the active model {timing.active_ms:.1f} ms, turn about on "
        f"this machine; best of {timing.rounds} round{'s' if timing.rounds > 1 else ''}"
    )
    passed = timing.ratio <= limit
    rule = "time per image over the active model's"
    return Criterion("latency", "Latency", rule, passed, why, timing.ratio, limit, "ratio", asdict(timing))
