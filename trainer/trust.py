"""How far each kind of evidence is to be trusted on this data, learned without a label.

Defects are painted into a sample of the training images (`models.corruption`). Evidence is worth as much as
it tells painted from unpainted images, and painted from unpainted pixels, given how much it spreads over
the training images anyway: a defect probability that differs from part to part for reasons of its own
ranks badly however well it marks the paint, and gets little weight.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score  # type: ignore[import-untyped]

from models.anomaly import image_score
from models.evidence import EvidenceName

Float = NDArray[np.float32]
Mask = NDArray[np.bool_]
PRACTISED = 0.5
"""What separation of paint counts for in evidence that was trained on it, when images are ranked."""
_PIXELS = 400_000  # enough for an area under the curve to three digits
_LEAST_PX = 4  # a defect of fewer map pixels is not asked for


@dataclass(frozen=True)
class Trust:
    """One kind of evidence: how well it finds paint, and whether to subtract the image's own median.

    It weighs `weight` in the map and `image_weight` in the score of an image.
    """

    image_auroc: float
    pixel_auroc: float
    image_median: bool
    weight: float = 0.0
    image_weight: float = 0.0

    @property
    def separation(self) -> float:
        """0 for chance or worse, 1 for perfect."""
        return max(0.0, self.image_auroc + self.pixel_auroc - 1.0)


def compare(before: Float, after: Float, masks: Mask, top_fraction: float, image_median: bool) -> Trust:
    """Corrected evidence `[N, H, W]` on images before and after painting; `masks [N, H, W]` say where."""
    visible = masks.sum(axis=(1, 2)) >= _LEAST_PX
    before, after, masks = before[visible], after[visible], masks[visible]
    if len(masks) == 0:
        return Trust(0.5, 0.5, image_median)
    scores = [image_score(amap, top_fraction) for amap in (*after, *before)]
    truth = np.arange(len(scores)) < len(after)
    step = max(1, after.size // _PIXELS)
    pixels, inside = after.ravel()[::step], masks.ravel()[::step]
    pixel = float(roc_auc_score(inside, pixels)) if 0 < inside.sum() < inside.size else 0.5
    return Trust(float(roc_auc_score(truth, scores)), pixel, image_median)


def share_weights(found: Mapping[EvidenceName, Trust]) -> dict[EvidenceName, Trust]:
    """Weights in proportion to separation, summing to 1; equal where nothing beats chance.

    For the score of an image the defect head's separation counts half: it was trained on the very paint that
    it is measured by, and ranks images by real defects less well than its place in the map suggests.
    """
    separations = {name: trust.separation for name, trust in found.items()}
    of_map = _shares(separations)
    of_image = _shares(
        {name: s * (PRACTISED if name == "defect" else 1.0) for name, s in separations.items()}
    )
    return {
        name: replace(trust, weight=of_map[name], image_weight=of_image[name])
        for name, trust in found.items()
    }


def _shares(values: Mapping[EvidenceName, float]) -> dict[EvidenceName, float]:
    total = sum(values.values())
    return {name: value / total if total else 1.0 / len(values) for name, value in values.items()}
