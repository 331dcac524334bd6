"""From residuals to a map, a score, regions and a verdict; and the robust calibration of the score.

One map is the source of everything: the image score is the mean of the map's highest pixels and the
pixel threshold is the review threshold in map units, so the verdict and the marked regions agree.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import cv2
import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
_MAD_TO_SIGMA = 1.4826
_TINY = 1e-6
UNFAMILIAR = 4.0
"""Robust standard deviations of an image's median residual beyond which the image itself is the anomaly."""
_FARTHEST = 20.0  # deviations beyond say no more, and must not overflow


class Verdict(StrEnum):
    PASS = "PASS"
    REVIEW = "REVIEW"
    REJECT = "REJECT"


@dataclass(frozen=True)
class Region:
    """A connected area of the map above the pixel threshold, in pixels of the original image."""

    x: int
    y: int
    width: int
    height: int
    area_px: int
    peak: float
    mean: float


@dataclass(frozen=True)
class ScoreCalibration:
    """Robust location and scale of log scores over the (contaminated) training images."""

    location: float
    scale: float

    def calibrate(self, raw: float) -> float:
        """Raw score (>= 0) -> robust standard deviations above a typical part; strictly increasing."""
        return (math.log(max(raw, 0.0) + _TINY) - self.location) / self.scale

    def raw(self, calibrated: float) -> float:
        """Inverse of `calibrate`."""
        return math.exp(calibrated * self.scale + self.location) - _TINY


def residual(x: Float, reconstruction: Float) -> Float:
    """Mean absolute difference over channels: `[..., C, H, W]` twice -> `[..., H, W]`."""
    return np.asarray(np.abs(x - reconstruction).mean(axis=-3))


@dataclass(frozen=True)
class MedianCalibration:
    """Robust location and scale of the log medians of smoothed residuals over the training images."""

    location: float
    scale: float

    def deviation(self, median: float) -> float:
        """How far an image's median is from a typical one, either way, in robust standard deviations."""
        return abs(math.log(max(median, _TINY)) - self.location) / self.scale


def smoothed_residual(
    residuals: Float, scales: Float, sigma_px: float, weights: Sequence[float] | None = None
) -> Float:
    """Residuals `[K, H, W]` of K noise levels -> `[H, W]`, about 1 for a typical part.

    Each level is divided by its typical residual over the training set (`scales [K]`), the levels are
    averaged, with K `weights` if they are not equal, and smoothed by a Gaussian. The distance of features
    is one more level.
    """
    relative = residuals / np.maximum(scales, _TINY)[:, None, None]
    combined: Float = np.average(relative, axis=0, weights=weights).astype(np.float32)
    if sigma_px > 0:
        blurred = cv2.GaussianBlur(combined, (0, 0), sigma_px, borderType=cv2.BORDER_REFLECT_101)
        combined = np.asarray(blurred, dtype=np.float32)
    return np.ascontiguousarray(combined)


def anomaly_map(smoothed: Float, *, image_median: bool) -> Float:
    """Smoothed residual `[H, W]` -> anomaly map `[H, W]`, about 1 where nothing is wrong.

    With `image_median` it is divided by the image's own median, so that rough and smooth parts compare.
    """
    if not image_median:
        return smoothed
    return smoothed / np.float32(max(float(np.median(smoothed)), _TINY))


def lift_unfamiliar(
    amap: Float, score: float, median: float, medians: MedianCalibration, scores: ScoreCalibration
) -> tuple[Float, float]:
    """Scale up the map and score of an image that the network restores as no training image.

    A picture of noise, a wrong part or a covered lens is equally wrong (or suspiciously easy)
    everywhere, and dividing by its own median would make it look perfect. More than UNFAMILIAR robust
    standard deviations from the training medians count as a score of as many.
    """
    deviation = min(medians.deviation(median), _FARTHEST)
    if deviation <= UNFAMILIAR:
        return amap, score
    factor = max(1.0, scores.raw(deviation) / max(score, _TINY))
    return amap * np.float32(factor), score * factor


def image_score(amap: Float, top_fraction: float) -> float:
    """Mean of the highest `top_fraction` of the map's pixels (at least one)."""
    count = max(1, round(top_fraction * amap.size))
    return float(np.partition(amap.ravel(), amap.size - count)[-count:].mean(dtype=np.float64))


def verdict(calibrated: float, review: float, reject: float) -> Verdict:
    """PASS below `review`, REJECT from `reject` on, a person decides between. Not-a-number is REJECT."""
    if calibrated < review:
        return Verdict.PASS
    return Verdict.REVIEW if calibrated < reject else Verdict.REJECT


def verdict_codes(calibrated: NDArray[np.float64], review: float, reject: float) -> NDArray[np.int64]:
    """`verdict` of scores `[N]` -> 0 for PASS, 1 for REVIEW, 2 for REJECT."""
    passed, reviewed = calibrated < review, calibrated < reject  # also false for not-a-number
    return np.where(passed, 0, np.where(reviewed, 1, 2)).astype(np.int64)


def regions(
    amap: Float, threshold: float, original_size: tuple[int, int], min_area_px: int = 1
) -> list[Region]:
    """Connected areas with map >= threshold, strongest first, as boxes in an image of (height, width)."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats((amap >= threshold).astype(np.uint8))
    scale_y, scale_x = original_size[0] / amap.shape[0], original_size[1] / amap.shape[1]
    found = []
    for label in range(1, count):
        left, top, width, height, area = (int(v) for v in stats[label])
        if area < min_area_px:
            continue
        inside = amap[labels == label]
        x0, y0 = math.floor(left * scale_x), math.floor(top * scale_y)
        x1, y1 = math.ceil((left + width) * scale_x), math.ceil((top + height) * scale_y)
        found.append(
            Region(
                x=x0,
                y=y0,
                width=x1 - x0,
                height=y1 - y0,
                area_px=round(area * scale_x * scale_y),
                peak=float(inside.max()),
                mean=float(inside.mean()),
            )
        )
    return sorted(found, key=lambda region: -region.peak)


def fit_score_calibration(scores: NDArray[np.float64]) -> ScoreCalibration:
    """Median of log scores and the spread of the half below it.

    Defects raise a score, so the lower half of a contaminated set is the cleaner one: its distance
    from the median gives the scale that the upper half would have without defects.
    """
    logs = np.log(np.maximum(np.asarray(scores, dtype=np.float64), 0.0) + _TINY)
    if logs.size == 0:
        raise ValueError("cannot calibrate on no scores")
    location = float(np.median(logs))
    below = location - logs[logs <= location]
    return ScoreCalibration(location, max(_MAD_TO_SIGMA * float(np.median(below)), 1e-3))


def fit_median_calibration(medians: NDArray[np.float64]) -> MedianCalibration:
    """Median and MAD of log medians; never tighter than 10 %.

    Parts framed and lit very much alike would else make a trap of the next day's slightly other light.
    """
    logs = np.log(np.maximum(np.asarray(medians, dtype=np.float64), _TINY))
    location = float(np.median(logs))
    return MedianCalibration(location, max(_MAD_TO_SIGMA * float(np.median(np.abs(logs - location))), 0.1))


def contamination_estimate(calibrated: NDArray[np.float64], z: float = 2.5) -> float:
    """Share of images above `z` robust sigmas beyond what the mirrored lower half predicts, in [0, 1].

    A floor: a defective part that scores like a good one is not counted.
    """
    expected = float((calibrated <= -z).mean())
    return float(np.clip((calibrated >= z).mean() - expected, 0.0, 1.0))
