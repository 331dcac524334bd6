"""What another ignore mask would have made of stored inspections, estimated from their stored maps.

The score is the mean of the map's highest pixels that are inspected. Of a stored map that is known for
every mask: as much as this mean changes, the raw score is taken to change. Evidence inside a mask is filled
before it is smoothed, and a detector weighs its evidence anew; both are left out, so near a limit the true
verdict may be the other one. Where the stored map was hidden by the mask then in force, nothing is known.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from models.anomaly import ScoreCalibration, image_score
from models.bundle import Thresholds
from models.masks import Mask, hide, inspected_share, resize
from service import render
from service.blobs import BlobMissing, BlobStore
from service.db.repository.masks import StoredMap
from service.recipes.whatif import VERDICTS, decide


@dataclass(frozen=True)
class Effect:
    """One stored inspection under another mask."""

    id: str
    score: float  # calibrated
    score_after: float
    before: str  # verdicts under the limits in force
    after: str
    review_state: str


def effects(
    stored: Sequence[StoredMap],
    blobs: BlobStore,
    mask: Mask | None,
    present: Mask | None,
    limits: Thresholds,
    calibration: ScoreCalibration,
    top_fraction: float,
) -> list[Effect]:
    """Of stored maps that are still there, in their order; a mask leaves something to inspect."""

    @cache
    def sized(height: int, width: int) -> tuple[Mask | None, ...]:
        return tuple(None if each is None else resize(each, (height, width)) for each in (present, mask))

    found = []
    for row in stored:
        try:
            amap = render.decode_map(blobs.get(row.heatmap_sha256), row.heatmap_scale)
        except BlobMissing:
            continue
        now, then = (_top(amap, each, top_fraction) for each in sized(amap.shape[0], amap.shape[1]))
        after = calibration.calibrate(row.score_raw * then / now if now > 0 else row.score_raw)
        before_code, after_code = decide(np.array([row.score, after]), limits)
        found.append(
            Effect(row.id, row.score, after, VERDICTS[before_code], VERDICTS[after_code], row.review_state)
        )
    return found


def _top(amap: np.typing.NDArray[np.float32], mask: Mask | None, top_fraction: float) -> float:
    size = (amap.shape[0], amap.shape[1])
    return image_score(hide(amap, mask), top_fraction * inspected_share(mask, size))


def uncovers(mask: Mask | None, present: Mask | None) -> bool:
    """Whether something would be inspected again that is hidden now."""
    if present is None:
        return False
    return mask is None or bool((present & ~resize(mask, (present.shape[0], present.shape[1]))).any())
