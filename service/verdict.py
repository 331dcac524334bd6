"""One map -> score, verdict and regions that agree with each other."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from models.anomaly import Verdict, regions, verdict
from models.bundle import ProfileCalibration, Thresholds
from models.engine import RawMap

_MAX_REGIONS = 100
_MIN_AREA_SHARE = 1e-4  # of the map: 7 pixels at 256 x 256
_MIN_AREA_PX = 3  # of the map, however small it is: less is a speck


class EngineOutputError(RuntimeError):
    """The engine's answer is not a number; nothing may be concluded from it."""


@dataclass(frozen=True)
class Judgement:
    score: float  # calibrated: robust sigmas above a typical part
    verdict: Verdict
    regions: list[dict[str, Any]]


def judge(
    raw: RawMap, calibration: ProfileCalibration, limits: Thresholds, image_size: tuple[int, int]
) -> Judgement:
    """Compare with the limits; boxes are in pixels of an image of (height, width).

    A PASS has no regions and everything else has at least one: the score is the mean of the map's
    highest pixels, so when it reaches the review limit some pixel does. EngineOutputError for NaN.
    """
    if not math.isfinite(raw.score):
        raise EngineOutputError(f"the score is {raw.score}")
    score = calibration.score.calibrate(raw.score)
    decided = verdict(score, limits.review, limits.reject)
    if decided is Verdict.PASS:
        return Judgement(score, decided, [])
    # The inverse of the calibration may land a rounding error above the score that crossed the limit;
    # that this is lost in float32 is luck we do not build on.
    threshold = min(calibration.score.raw(limits.review), raw.score)
    found = regions(raw.map, threshold, image_size)
    pixel_area = image_size[0] * image_size[1] / raw.map.size
    smallest = max(_MIN_AREA_PX, _MIN_AREA_SHARE * raw.map.size) * pixel_area
    large = [region for region in found if region.area_px >= smallest] or found[:1]
    return Judgement(score, decided, [asdict(region) for region in large[:_MAX_REGIONS]])
