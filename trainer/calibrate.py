"""Calibration on the contaminated training images themselves: residual scales, score location, thresholds."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from models.anomaly import (
    anomaly_map,
    contamination_estimate,
    fit_median_calibration,
    fit_score_calibration,
    image_score,
    smoothed_residual,
)
from models.bundle import Profile, ProfileCalibration, Thresholds
from models.engine import residual_levels
from models.preprocess import to_float
from models.process import DiffusionProcess
from models.samplers import Denoiser
from trainer.recipe import Calibration

Float = NDArray[np.float32]
Report = Callable[[str, int, int], None]
"""Called with (profile, images done, images in all)."""

SCALE_HEADROOM = 1.25
"""Top of the fixed colour scale over the reject threshold: what is rejected is bright, not blinding."""


@dataclass(frozen=True)
class Calibrated:
    """One profile's calibration and the raw scores it rests on, in the order of `indices`."""

    calibration: ProfileCalibration
    indices: NDArray[np.int64]  # [N] into the training set
    scores: NDArray[np.float64]  # [N] raw
    contamination: float


def calibration_subset(images: int, calls_per_image: int, spec: Calibration, seed: int) -> NDArray[np.int64]:
    """A seeded sample as large as the budget of network calls allows, never below `min_images`.

    Images that cost no calls are not limited.
    """
    wanted = max(spec.min_images, spec.max_calls // calls_per_image) if calls_per_image else images
    return np.sort(np.random.default_rng((seed, 1)).permutation(images)[:wanted])


def calibrate_profile(
    net: Denoiser,
    process: DiffusionProcess,
    name: str,
    profile: Profile,
    pixels: NDArray[np.uint8],
    seeds: list[int],
    spec: Calibration,
    *,
    subset_seed: int,
    whole_set: bool = False,
    batch_size: int = 8,
    report: Report = lambda profile, done, total: None,
) -> Calibrated:
    """Run a profile over training images `pixels [N, C, H, W]` and learn what is usual for it.

    A seeded sample within the recipe's budget of network calls is used, or the `whole_set`.
    """
    calls = 0 if whole_set else profile.network_calls
    indices = calibration_subset(len(pixels), calls, spec, subset_seed)
    collected: list[Float] = []
    for start in range(0, len(indices), batch_size):
        rows = indices[start : start + batch_size]
        levels, _ = residual_levels(net, process, profile, to_float(pixels[rows]), [seeds[i] for i in rows])
        collected.extend(levels)
        report(name, len(collected), len(indices))
    residuals = np.stack(collected)  # [N, K, H, W]
    scales = np.median(residuals, axis=(0, 2, 3)).astype(np.float32)
    recipe = profile.map
    smoothed = [smoothed_residual(levels, scales, recipe.sigma_px) for levels in residuals]
    maps = [anomaly_map(image, image_median=recipe.image_median) for image in smoothed]
    scores = np.array([image_score(amap, recipe.top_fraction) for amap in maps])
    medians = fit_median_calibration(np.array([np.median(image) for image in smoothed]))
    fitted = fit_score_calibration(scores)
    calibrated = np.array([fitted.calibrate(score) for score in scores])
    suggested = suggest_thresholds(spec)
    return Calibrated(
        calibration=ProfileCalibration(
            residual_scales=tuple(float(max(scale, 1e-6)) for scale in scales),
            score_location=fitted.location,
            score_scale=fitted.scale,
            median_location=medians.location,
            median_scale=medians.scale,
            suggested=suggested,
            map_max=SCALE_HEADROOM * fitted.raw(suggested.reject),
            images=len(indices),
        ),
        indices=indices,
        scores=scores,
        contamination=contamination_estimate(calibrated),
    )


def suggest_thresholds(spec: Calibration) -> Thresholds:
    """Calibrated scores that the target shares of good parts exceed, if good log scores are normal.

    The score's location and scale come from the cleaner half of the training scores
    (`models.anomaly.fit_score_calibration`), so contaminants do not push the thresholds up.
    """
    normal = NormalDist()
    return Thresholds(
        review=normal.inv_cdf(1 - spec.review_rate), reject=normal.inv_cdf(1 - spec.reject_rate)
    )
