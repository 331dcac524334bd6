"""The limits of a retrained model: it stops as many parts as the model before it, until people say otherwise.

Limits in force are a decision of people, on the scores of one model. Another model's scores have another
scale, which its calibration finds only as well as it can tell how many of its images are defective. So where
images are at hand that neither model has learned from, the limits are carried over by the share of these
images that lies above them (as percentiles are linked in "equipercentile equating" of tests, Kolen and
Brennan 2014). A line that has left the active model behind is another matter: there its shares mean nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.bundle import Thresholds
from models.masks import Mask
from trainer.calibrate import SCALE_HEADROOM, Calibrated
from trainer.criteria import psi_to_own
from trainer.exam import Side, ask

LEAST = 50
"""Images; of fewer the share above a limit is known too badly."""


@dataclass(frozen=True)
class Before:
    """The model that a new one is to replace, by the limits in force, and where it does not inspect."""

    side: Side
    mask: Mask | None


def carry_over(found: Calibrated, paths: Sequence[Path], before: Before) -> Calibrated | None:
    """A calibration whose suggested limits are the carried ones; None where nothing can be carried over.

    `paths` are those of the images that `found` rests on, by its scores; neither learned from them.
    """
    if len(paths) < LEAST:
        return None
    said = ask(before.side, paths, before.mask)
    moved, limit = psi_to_own(before.side, said)
    if moved > limit:
        return None
    score = found.calibration.score
    scores = np.array([score.calibrate(float(raw)) for raw in found.scores])
    limits = matched(scores, said.calibrated, before.side.limits, found.calibration.suggested)
    top = SCALE_HEADROOM * score.raw(limits.reject)
    return replace(
        found, calibration=found.calibration.model_copy(update={"suggested": limits, "map_max": top})
    )


def with_limits(
    calibrated: Mapping[str, Calibrated], images: Sequence[Path], before: Before | None
) -> tuple[dict[str, Calibrated], tuple[str, ...]]:
    """All profiles, the one that `before` inspects by with carried limits if that can be; and its name then.

    `images` are those the profiles were calibrated on.
    """
    profiles = dict(calibrated)
    found = None if before is None else profiles.get(before.side.profile)
    if before is None or found is None:
        return profiles, ()
    carried = carry_over(found, [images[row] for row in found.indices], before)
    if carried is None:
        return profiles, ()
    return {**profiles, before.side.profile: carried}, (before.side.profile,)


def matched(
    scores: NDArray[np.float64], before: NDArray[np.float64], limits: Thresholds, own: Thresholds
) -> Thresholds:
    """Limits above which lie as many `scores` as lay of `before` above `limits`.

    Half-way between two scores; where nothing lay above a limit, `own` if nothing lies above that either, or
    else just above them all.
    """
    ordered = np.sort(scores)[::-1]

    def limit(above: int, suggested: float) -> float:
        if above == 0:
            return max(suggested, float(np.nextafter(ordered[0], np.inf)))
        if above == len(ordered):
            return float(ordered[-1])
        return float((ordered[above - 1] + ordered[above]) / 2)

    review = limit(int((before >= limits.review).sum()), own.review)
    reject = limit(int((before >= limits.reject).sum()), own.reject)
    return Thresholds(review=review, reject=max(review, reject))
