"""The figures of an attribute study (AIAG, Measurement Systems Analysis, 4th edition, III C).

The inspection accepts a part with PASS; everything else goes to a person or is rejected. It is effective on
parts that it decides as their reference says in every trial, consistent on those it decides alike.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from service.msa.study import Result
from service.recipes.intervals import Share, plain_share, wilson

RATINGS = ("acceptable", "marginal", "unacceptable")
# AIAG: effectiveness at least; misses and false alarms at most, for acceptable and for marginal.
_EFFECTIVE, _MISS, _ALARM = (0.90, 0.80), (0.02, 0.05), (0.05, 0.10)


@dataclass(frozen=True)
class Part:
    """All trials of one part."""

    part: str
    reference: str
    verdicts: Sequence[str]
    scores: Sequence[float]

    @property
    def accepted(self) -> int:
        """Trials with PASS."""
        return sum(verdict == "PASS" for verdict in self.verdicts)

    @property
    def wrong(self) -> int:
        """Trials decided against the reference."""
        return self.accepted if self.reference == "defective" else len(self.verdicts) - self.accepted

    @property
    def consistent(self) -> bool:
        return self.accepted in (0, len(self.verdicts))


@dataclass(frozen=True)
class Rated:
    """A share with what AIAG calls one of its size."""

    share: Share
    rating: str


@dataclass(frozen=True)
class Agreement:
    """What the study found; kappa is None where it is not defined (only one kind of decision)."""

    parts: Sequence[Part]
    runs: int
    effectiveness: Rated
    miss: Rated  # of the trials of defective parts
    false_alarm: Rated  # of the trials of good parts: REVIEW, REJECT, ERROR or EXPIRED
    consistency: Share
    kappa_reference: float | None  # Cohen's, over all runs
    kappa_trials: float | None  # Fleiss', of the trials among each other
    review: Share  # runs that a person is asked about
    failed: int  # runs without a verdict of the model
    score_sd: float | None  # of one part's calibrated scores, pooled over parts
    near: int  # parts whose mean score is within 3 SD of a limit

    @property
    def rating(self) -> str:
        """The worst of the three."""
        rated = (self.effectiveness, self.miss, self.false_alarm)
        return RATINGS[max(RATINGS.index(each.rating) for each in rated)]


def agreement(results: Sequence[Result]) -> Agreement:
    """The figures of all results; every part has had the same number of trials, at least two."""
    ordered = sorted(results, key=lambda each: (each.part, each.trial))
    parts = [_part(list(group)) for _, group in groupby(ordered, key=lambda each: each.part)]
    good = [part for part in parts if part.reference == "good"]
    bad = [part for part in parts if part.reference == "defective"]
    limits = [limit for each in ordered for limit in (each.review, each.reject) if limit is not None]
    sd = _pooled_sd(parts)
    asked = sum(each.verdict == "REVIEW" for each in ordered)
    return Agreement(
        parts=parts,
        runs=len(ordered),
        effectiveness=_at_least(_whole(parts, [not part.wrong for part in parts]), _EFFECTIVE),
        miss=_at_most(_of_trials(bad), _MISS),
        false_alarm=_at_most(_of_trials(good), _ALARM),
        consistency=_whole(parts, [part.consistent for part in parts]),
        kappa_reference=_cohen(ordered),
        kappa_trials=_fleiss(parts),
        review=Share(asked / len(ordered), *wilson(asked, len(ordered)), len(ordered), "wilson"),
        failed=sum(each.verdict in ("ERROR", "EXPIRED") for each in ordered),
        score_sd=sd,
        near=sum(_is_near(part, set(limits), sd) for part in parts),
    )


def _part(trials: Sequence[Result]) -> Part:
    scores = [each.score for each in trials if each.score is not None]
    return Part(trials[0].part, trials[0].reference, [each.verdict for each in trials], scores)


def _whole(parts: Sequence[Part], fits: Sequence[bool]) -> Share:
    share = plain_share(sum(fits), len(parts))
    assert share is not None
    return share


def _of_trials(parts: Sequence[Part]) -> Share:
    """The share of wrong trials. Trials of one part are not independent: the interval counts parts."""
    trials = sum(len(part.verdicts) for part in parts)
    value = sum(part.wrong for part in parts) / trials
    return Share(value, *wilson(value * len(parts), len(parts)), trials, "wilson-effective")


def _at_least(share: Share, limits: tuple[float, float]) -> Rated:
    return Rated(share, RATINGS[sum(share.value < limit for limit in limits)])


def _at_most(share: Share, limits: tuple[float, float]) -> Rated:
    return Rated(share, RATINGS[sum(share.value > limit for limit in limits)])


def _cohen(results: Sequence[Result]) -> float | None:
    """Cohen's kappa (1960) of decision and reference over all runs."""
    pairs = Counter((each.verdict == "PASS", each.reference == "good") for each in results)
    total = len(results)
    agreed = (pairs[True, True] + pairs[False, False]) / total
    accepted = (pairs[True, True] + pairs[True, False]) / total
    good = (pairs[True, True] + pairs[False, True]) / total
    return _beyond_chance(agreed, accepted * good + (1 - accepted) * (1 - good))


def _fleiss(parts: Sequence[Part]) -> float | None:
    """Fleiss' kappa (1971) of the trials: parts are subjects, trials are raters."""
    trials = len(parts[0].verdicts)
    accepted = np.array([part.accepted for part in parts], float)
    same = (accepted * (accepted - 1) + (trials - accepted) * (trials - accepted - 1)) / (
        trials * (trials - 1)
    )
    share = accepted.sum() / (trials * len(parts))
    return _beyond_chance(float(same.mean()), float(share**2 + (1 - share) ** 2))


def _beyond_chance(agreed: float, chance: float) -> float | None:
    return None if math.isclose(chance, 1.0) else (agreed - chance) / (1 - chance)


def _pooled_sd(parts: Sequence[Part]) -> float | None:
    spread = [(np.var(part.scores, ddof=1), len(part.scores) - 1) for part in parts if len(part.scores) > 1]
    if not spread:
        return None
    return float(math.sqrt(sum(var * free for var, free in spread) / sum(free for _, free in spread)))


def _is_near(part: Part, limits: set[float], sd: float | None) -> bool:
    if sd is None or not part.scores:
        return False
    middle = float(np.mean(part.scores))
    return any(abs(middle - limit) < 3 * sd for limit in limits)
