"""Several views of what is wrong, each in its own units, brought to one scale and weighed into one map.

Evidence is a log map `[H, W]`: of the reconstruction residual, and of the detector's outputs
(`models.detector`). Calibration on the contaminated training images gives each a location, a scale and,
where parts are framed alike, a usual value per place; its weight says how far it is to be trusted on this
data (`trainer.trust`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from models.anomaly import image_score

Float = NDArray[np.float32]
EvidenceName = Literal["residual", "defect", "distance", "wide"]
DETECTOR_EVIDENCE: tuple[EvidenceName, ...] = ("defect", "distance", "wide")
"""The detector's outputs, in the order of its channels."""
_TINY = 1e-6


@dataclass(frozen=True)
class Look:
    """What the detector says of images."""

    evidence: Float  # [B, 3, h, w]
    features: Float | None = None  # [B, D] means over the image; None in bundles made before there were any

    def row(self, index: int) -> tuple[Float, Float | None]:
        """Of one image: evidence `[3, h, w]`, mean features `[D]`."""
        return self.evidence[index], None if self.features is None else self.features[index]


class ImageCalibration(BaseModel):
    """How high one kind of evidence rises in a usual image, above what is usual for the image's kind."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    location: float = Field(description="median over the training images")
    scale: float = Field(gt=0, description="robust sigma of the training images' lower half")
    weight: float = Field(ge=0, le=1, description="trust in its ranking of images; the weights sum to 1")


class EvidenceCalibration(BaseModel):
    """What is usual for one kind of evidence over the training images, and how far to trust it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    location: float = Field(description="median over the training images' pixels")
    scale: float = Field(gt=0, description="robust sigma over the training images' pixels")
    image_median: bool = Field(description="subtract the image's own median first")
    weight: float = Field(ge=0, le=1, description="trust, from painted defects; the weights sum to 1")
    image: ImageCalibration | None = Field(
        default=None,
        exclude_if=lambda image: image is None,
        description="for the score of the image; none in bundles made before there was one",
    )


def log_residual(smoothed: Float) -> Float:
    """Smoothed residual `[H, W]` -> evidence, 0 where it is typical of the training set."""
    return np.log(np.maximum(smoothed, _TINY))


def detector_evidence(outputs: Float, size: tuple[int, int], sigma_px: float) -> dict[EvidenceName, Float]:
    """The detector's channels `[3, h, w]` -> evidence at `size` (height, width), smoothed."""
    found: dict[EvidenceName, Float] = {}
    for name, channel in zip(DETECTOR_EVIDENCE, outputs, strict=True):
        found[name] = smooth(resize(channel, size), sigma_px)
    return found


def correct(evidence: Float, image_median: bool, position: Float | None) -> Float:
    """Evidence `[H, W]` less the image's own median, if asked, and less what is usual at each place."""
    if image_median:
        evidence = evidence - np.float32(np.median(evidence))
    if position is not None:
        evidence = evidence - resize(position, evidence.shape)
    return evidence


def standardise(evidence: Float, calibration: EvidenceCalibration, position: Float | None) -> Float:
    """Evidence `[H, W]` in robust standard deviations above what is usual, here and at this place."""
    corrected = correct(evidence, calibration.image_median, position)
    return (corrected - np.float32(calibration.location)) / np.float32(calibration.scale)


def deviations(
    evidence: Mapping[EvidenceName, Float],
    calibration: Mapping[EvidenceName, EvidenceCalibration],
    positions: Mapping[EvidenceName, Float],
) -> dict[EvidenceName, Float]:
    """All evidence on an image, `[H, W]` each, standardised."""
    return {
        name: standardise(values, calibration[name], positions.get(name)) for name, values in evidence.items()
    }


def fuse(
    deviating: Mapping[EvidenceName, Float], calibration: Mapping[EvidenceName, EvidenceCalibration]
) -> Float:
    """One positive map `[H, W]`: the weighted mean of `softplus(deviation)` over all evidence.

    About 0.7 where nothing is wrong, and linear in the deviation where much is. What looks even more usual
    than usual to one kind of evidence must not hide what another sees, so deviations below 0 hardly count;
    an exponential instead would let one pixel outshine a whole image.
    """
    total = np.zeros(next(iter(deviating.values())).shape, dtype=np.float32)
    for name, deviation in deviating.items():
        total += np.float32(calibration[name].weight) * np.logaddexp(np.float32(0.0), deviation)
    return total


def judge(
    tops: Mapping[EvidenceName, float],
    calibration: Mapping[EvidenceName, EvidenceCalibration],
    usual: Mapping[EvidenceName, float],
) -> float | None:
    """The score of an image: about 0.8 for a usual one, None where calibration is from before there was one.

    `tops` says how high each kind of evidence rises (`image_score` of its deviations), `usual` how high it
    does in images of that kind, where that matters. The root brings the weighted mean of `softplus` to the
    range of the map's own contrast, so that neither the image nor the place decides alone which pixel of two
    images is worse.
    """
    total = 0.0
    for name, top in tops.items():
        image = calibration[name].image
        if image is None:
            return None
        above = (top - usual.get(name, 0.0) - image.location) / image.scale
        total += image.weight * float(np.logaddexp(0.0, above))
    return math.sqrt(total)


def weigh(
    deviating: Mapping[EvidenceName, Float],
    calibration: Mapping[EvidenceName, EvidenceCalibration],
    usual: Mapping[EvidenceName, float],
    top_fraction: float,
) -> tuple[Float, float]:
    """Standardised evidence `[H, W]` each -> the map `[H, W]`, and its score: the mean of its highest pixels.

    What stands out within the image is the fused map's; how much, compared with other images, `judge`'s.
    """
    amap = fuse(deviating, calibration)
    own = image_score(amap, top_fraction)
    tops = {name: image_score(deviation, top_fraction) for name, deviation in deviating.items()}
    score = judge(tops, calibration, usual)
    return (amap, own) if score is None else (amap * np.float32(score / max(own, _TINY)), score)


def smooth(values: Float, sigma_px: float) -> Float:
    """Gaussian smoothing, mirrored at the border."""
    if sigma_px <= 0:
        return values
    blurred = cv2.GaussianBlur(values, (0, 0), sigma_px, borderType=cv2.BORDER_REFLECT_101)
    return np.asarray(blurred, dtype=np.float32)


def resize(values: Float, size: tuple[int, ...]) -> Float:
    """`[h, w]` -> `[*size]`, by area when shrinking and linearly when growing."""
    if values.shape == tuple(size):
        return values
    shrinking = size[0] * size[1] < values.size
    mode = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    contiguous = np.ascontiguousarray(values, dtype=np.float32)
    return np.asarray(cv2.resize(contiguous, (size[1], size[0]), interpolation=mode), dtype=np.float32)
