"""What is usual for an image's own kind: compared with the training images that look most like it.

Rough parts score higher than smooth ones, one exposure higher than another, without being worse. So an
image is placed among the training images by the few directions in which mean features vary most, and its
highest evidence is judged by that of the nearest ones: conditional calibration by nearest neighbours. A low
quantile of theirs leaves contaminants among them without a say. Nothing of the image's own evidence is
subtracted, so that a defect that fills the image stays one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.evidence import EvidenceName

Float = NDArray[np.float32]

NEIGHBOURS = 40
"""Training images an image is compared with."""
QUANTILE = 0.25
"""Of the neighbours' highest evidence that is taken for usual."""
CLIP = 4.0
"""Robust standard deviations beyond which a feature says no more about the kind."""
_TWIN = 1e-3  # closer than this it is the same picture, which must not vouch for itself
_PREFIX = "kind"


@dataclass(frozen=True)
class Kinds:
    """The training images as points, and how high each kind of evidence rises in them.

    The widest direction has unit variance. `tops` has only the evidence that depends on the kind.
    """

    centre: Float  # [D] median of the mean features
    spread: Float  # [D] robust sigma of the mean features
    axes: Float  # [K, D] directions
    points: Float  # [N, K]
    tops: Mapping[EvidenceName, Float]  # [N] each: of the highest pixels, in deviations

    def place(self, features: Float) -> Float:
        """An image's mean features `[D]` -> its point `[K]`."""
        standard = np.clip((features - self.centre) / self.spread, -CLIP, CLIP)
        return np.asarray(self.axes @ standard, dtype=np.float32)

    def usual(self, features: Float) -> dict[EvidenceName, float]:
        """Mean features `[D]` -> how high evidence rises in a usual image of that kind.

        A training image among them is left out of its own comparison, here as in calibration.
        """
        return self.usual_at(self.place(features))

    def usual_at(self, point: Float) -> dict[EvidenceName, float]:
        """The same of a point `[K]`."""
        away = np.square(self.points - point).sum(axis=1)
        nearest = np.argsort(away, kind="stable")
        nearest = nearest[away[nearest] > _TWIN**2][:NEIGHBOURS]
        if not nearest.size:
            nearest = np.arange(len(away))
        return {name: float(np.quantile(tops[nearest], QUANTILE)) for name, tops in self.tops.items()}

    def arrays(self) -> dict[str, Float]:
        """For the bundle's calibration file; `read_kinds` is the inverse."""
        plain = {"centre": self.centre, "spread": self.spread, "axes": self.axes, "points": self.points}
        found = {**plain, **{f"top/{name}": tops for name, tops in self.tops.items()}}
        return {f"{_PREFIX}/{key}": np.ascontiguousarray(array) for key, array in found.items()}


def read_kinds(arrays: Mapping[str, NDArray[np.generic]], names: Sequence[EvidenceName]) -> Kinds | None:
    """From the arrays of one profile; None where there are none. ValueError for arrays that do not fit."""
    if f"{_PREFIX}/points" not in arrays:
        return None
    own = {key: array.astype(np.float32) for key, array in arrays.items() if key.startswith(f"{_PREFIX}/")}
    tops = {name: own[key] for name in names if (key := f"{_PREFIX}/top/{name}") in own}
    centre, spread, axes, points = (own[f"{_PREFIX}/{key}"] for key in ("centre", "spread", "axes", "points"))
    fits = points.ndim == 2 and axes.shape == (points.shape[1], centre.size) and spread.shape == centre.shape
    if (
        not fits
        or centre.ndim != 1
        or not points.size
        or any(top.shape != (len(points),) for top in tops.values())
    ):
        raise ValueError("the kinds of images do not fit each other")
    if not all(np.isfinite(array).all() for array in own.values()) or not (spread > 0).all():
        raise ValueError("the kinds of images must be finite numbers, and their spread positive")
    return Kinds(centre, spread, axes, points, tops)
