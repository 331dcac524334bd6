"""Which kinds of images there are, and whether they matter - which is measured, not assumed.

The directions come from the training images' mean features in robust units, which contaminants hardly turn.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from models.evidence import EvidenceName
from models.kinds import CLIP, NEIGHBOURS, Kinds

Float = NDArray[np.float32]

DIRECTIONS = 5
LEAST_IMAGES = 2 * NEIGHBOURS
"""Below this many images neighbours are not of a kind."""
MATTERS = 0.05
"""Share of the spread of good parts that must go when the kind is known."""
_LEAST_SPREAD = 0.1  # deviations of pixels; finer differences between images are left to chance


def fit_kinds(features: Float, tops: Mapping[EvidenceName, Float]) -> Kinds | None:
    """Mean features `[N, D]` of the training images and how high each kind of evidence rises in them, `[N]`.

    Evidence that spreads as much within kinds as over all images is left out; None when no evidence is left,
    or when there are too few images.
    """
    if len(features) < LEAST_IMAGES:
        return None
    centre = np.median(features, axis=0)
    spread = 1.4826 * np.median(np.abs(features - centre), axis=0)
    spread = np.maximum(spread, max(1e-6, 1e-3 * float(np.median(spread))))
    standard = np.clip((features - centre) / spread, -CLIP, CLIP)
    _, _, directions = np.linalg.svd(standard - standard.mean(axis=0), full_matrices=False)
    points = standard @ directions[:DIRECTIONS].T
    scale = max(float(points.std(axis=0).max()), 1e-6)  # one for all: a direction counts as far as it varies
    kinds = Kinds(
        centre=centre.astype(np.float32),
        spread=spread.astype(np.float32),
        axes=(directions[:DIRECTIONS] / scale).astype(np.float32),
        points=(points / scale).astype(np.float32),
        tops={name: values.astype(np.float32) for name, values in tops.items()},
    )
    usual = usual_of_all(kinds)
    kept = {
        name: values
        for name, values in kinds.tops.items()
        if lower_spread(values - usual[name]) < (1 - MATTERS) * lower_spread(values)
    }
    return replace(kinds, tops=kept) if kept else None


def usual_of_all(kinds: Kinds) -> dict[EvidenceName, Float]:
    """For each training image, `[N]`, how high evidence rises in the others of its kind."""
    found = [kinds.usual_at(point) for point in kinds.points]
    return {name: np.array([usual[name] for usual in found], dtype=np.float32) for name in kinds.tops}


def lower_spread(values: Float) -> float:
    """Robust sigma of the half below the median, which contaminants hardly reach."""
    middle = np.median(values)
    below = middle - values[values <= middle]
    return max(1.4826 * float(np.median(below)), _LEAST_SPREAD)
