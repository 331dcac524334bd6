"""Measures of detection and localisation on raw, unclamped scores.

Image metrics and the curves under pixel metrics are scikit-learn's. What is ours is the per-region
overlap (Bergmann et al. 2020, "MVTec Anomaly Detection") and a lossless grouping of pixels that makes
a hundred million of them cheap: normal pixels matter only through how many of them score above, or
exactly at, each distinct score of a defective pixel. One in-place float32 sort gives those counts.

A metric that is not defined on its data - no defects, no good images - is None, never NaN.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage  # type: ignore[import-untyped]
from sklearn.metrics import (  # type: ignore[import-untyped]
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
)

Float = NDArray[np.float32]
Mask = NDArray[np.bool_]
Float64 = NDArray[np.float64]
Counts = NDArray[np.int64]

_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=np.int8)


@dataclass(frozen=True)
class DetectionMetrics:
    """How well scores separate defective (positive) from normal; None where undefined."""

    auroc: float | None
    average_precision: float | None
    f1_max: float | None


@dataclass(frozen=True)
class PixelRanking:
    """Pixels grouped by the K distinct scores of the defective ones, highest score first."""

    defective: Counts  # [K] defective pixels with this score
    overlap: Float64  # [K] sum over them of 1 / (area of the region they belong to)
    above: Counts  # [K] normal pixels with a higher score
    at_or_above: Counts  # [K] normal pixels with this score or a higher one
    normal: int  # normal pixels in all
    regions: int  # ground-truth regions in all


def detection_metrics(
    defective: NDArray[np.bool_], scores: Float64, weights: Float64 | None = None
) -> DetectionMetrics:
    """AUROC, average precision and best F1 over all thresholds of `scores [N]` against truth `[N]`."""
    if not defective.any() or defective.all():
        return DetectionMetrics(None, None, None)
    precision, recall, _ = precision_recall_curve(defective, scores, sample_weight=weights)
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(np.float64).tiny)
    return DetectionMetrics(
        auroc=float(roc_auc_score(defective, scores, sample_weight=weights)),
        average_precision=float(average_precision_score(defective, scores, sample_weight=weights)),
        f1_max=float(f1.max()),
    )


def sorted_pixels(maps: Sequence[Float]) -> Float:
    """All pixels of maps `[H, W]` of any sizes, ascending `[N]`; shared by every type's ranking."""
    if not maps:
        return np.empty(0, dtype=np.float32)
    pixels = np.concatenate([amap.ravel() for amap in maps]).astype(np.float32, copy=False)
    pixels.sort()
    return pixels


def rank_pixels(maps: Sequence[Float], masks: Sequence[Mask], good: Float | None = None) -> PixelRanking:
    """Group the pixels of maps `[H, W]` by truth in masks of the same sizes.

    `good` are the pixels of defect-free images as `sorted_pixels` returns them. Regions are the
    8-connected components of each mask.
    """
    scores, shares, normals, regions = [], [], [], 0
    for amap, mask in zip(maps, masks, strict=True):
        labels, found = ndimage.label(mask, structure=_EIGHT_NEIGHBOURS)
        inside = labels > 0
        areas = np.bincount(labels.ravel(), minlength=found + 1)
        scores.append(amap[inside])
        shares.append(1.0 / areas[labels[inside]])
        normals.append(amap[~inside])
        regions += found
    pools = [sorted_pixels(normals)] + ([] if good is None else [good])
    values, group = np.unique(_joined(scores), return_inverse=True)
    overlap: Float64 = np.bincount(group, weights=_joined(shares), minlength=len(values))  # type: ignore[assignment]
    return PixelRanking(
        defective=np.bincount(group, minlength=len(values))[::-1],
        overlap=overlap[::-1],
        above=_higher(pools, values, "right")[::-1],
        at_or_above=_higher(pools, values, "left")[::-1],
        normal=sum(len(pool) for pool in pools),
        regions=regions,
    )


def _joined(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.float32)


def _higher(pools: Sequence[Float], values: Float, side: Literal["left", "right"]) -> Counts:
    """How many pixels of the ascending pools lie above (right) or at or above (left) each value `[K]`."""
    counts = np.zeros(len(values), dtype=np.int64)
    for pool in pools:
        counts += len(pool) - np.searchsorted(pool, values, side=side)
    return counts


def pixel_metrics(ranking: PixelRanking) -> DetectionMetrics:
    """AUROC, average precision (AUPRC) and best F1 over pixels.

    Between two neighbouring scores of defective pixels the order of the normal ones changes none of
    the three, so each such run becomes one entry with a weight, and scikit-learn does the rest.
    """
    groups = len(ranking.defective)
    level = 2.0 * np.arange(groups, 0, -1)  # [K] even: scores of defective pixels; odd and 0: runs between
    tied = ranking.at_or_above - ranking.above
    run = ranking.above - np.concatenate([[0], ranking.at_or_above[:-1]])[:groups]
    rest = ranking.normal - (ranking.at_or_above[-1] if groups else 0)
    scores = np.concatenate([level, level, level + 1, [0.0]])
    weights = np.concatenate([ranking.defective, tied, run, [rest]]).astype(np.float64)
    truth = np.arange(len(scores)) < groups
    kept = weights > 0
    return detection_metrics(truth[kept], scores[kept], weights[kept])


def pro_curve(ranking: PixelRanking) -> tuple[Float64, Float64]:
    """False-positive rate over all normal pixels and mean overlap over all regions, both `[2K + 2]`.

    Every threshold is a vertex. While the threshold falls between scores of defective pixels only the
    rate grows, which the two vertices per score (before and after it is let in) describe exactly.
    """
    overlap = np.minimum(np.cumsum(ranking.overlap) / max(ranking.regions, 1), 1.0)
    before = np.concatenate([[0.0], overlap])[: len(overlap)]
    rate = np.stack([ranking.above, ranking.at_or_above], axis=1).ravel() / max(ranking.normal, 1)
    return (
        np.concatenate([[0.0], rate, [1.0]]),
        np.concatenate([[0.0], np.stack([before, overlap], axis=1).ravel(), [1.0]]),
    )


def aupro(ranking: PixelRanking, limit: float = 0.3) -> float | None:
    """Area under the per-region overlap curve for rates 0 to `limit`, divided by `limit`.

    Trapezoids; the one that crosses the limit is cut there by linear interpolation. None without
    regions or without normal pixels.
    """
    if not 0 < limit <= 1:
        raise ValueError(f"the false-positive rate limit must be in (0, 1], got {limit}")
    if ranking.regions == 0 or ranking.normal == 0:
        return None
    rate, overlap = pro_curve(ranking)
    left, right = rate[:-1], rate[1:]
    end = np.minimum(right, limit)
    width = np.maximum(end - left, 0.0)
    slope = np.diff(overlap) / np.where(right > left, right - left, 1.0)
    area = width * (overlap[:-1] + 0.5 * slope * width)
    return float(area.sum() / limit)


@dataclass(frozen=True)
class SquaredError:
    """Sums of squared reconstruction error inside and outside of the defect mask, on pixels in [-1, 1]."""

    outside: float = 0.0
    outside_px: int = 0
    inside: float = 0.0
    inside_px: int = 0

    def __add__(self, other: "SquaredError") -> "SquaredError":
        return SquaredError(
            self.outside + other.outside,
            self.outside_px + other.outside_px,
            self.inside + other.inside,
            self.inside_px + other.inside_px,
        )

    @property
    def mse_outside(self) -> float | None:
        return self.outside / self.outside_px if self.outside_px else None

    @property
    def mse_inside(self) -> float | None:
        return self.inside / self.inside_px if self.inside_px else None


def squared_error(image: Float, reconstruction: Float, mask: Mask) -> SquaredError:
    """Error of one reconstruction: images `[C, H, W]` in [-1, 1], mask `[H, W]`, mean over channels."""
    error = np.square(image.astype(np.float64) - reconstruction).mean(axis=0)
    inside = int(mask.sum())
    return SquaredError(float(error[~mask].sum()), mask.size - inside, float(error[mask].sum()), inside)
