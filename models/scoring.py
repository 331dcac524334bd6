"""From a profile's healthy estimates, and what else looked at an image, to its anomaly map and score."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.anomaly import anomaly_map, image_score, lift_unfamiliar, smoothed_residual
from models.bundle import ProfileCalibration
from models.drive import Denoiser
from models.evidence import EvidenceName, detector_evidence, deviations, log_residual, weigh
from models.kinds import Kinds
from models.masks import Mask, fill, hide, inspected_share, outside
from models.masks import check as check_mask
from models.process import DiffusionProcess
from models.profiles import Profile
from models.reconstruct import reconstruct
from models.residuals import RESIDUALS
from models.tiles import Compare

Float = NDArray[np.float32]


@dataclass(frozen=True)
class RawMap:
    """What the engine says of one image."""

    map: Float  # [H, W]; the highest pixels of a usual image are about 1
    reconstruction: Float  # [C, H, W] in [-1, 1]
    score: float  # mean of the map's highest pixels, not calibrated


def residual_levels(
    net: Denoiser,
    process: DiffusionProcess,
    profile: Profile,
    images: Float,
    seeds: Sequence[int],
    should_stop: Callable[[], bool] | None = None,
    features: Compare | None = None,
) -> tuple[Float, Float]:
    """Run a profile: `images [B, C, H, W]` -> residuals `[B, K, H, W]`, reconstruction `[B, C, H, W]`.

    Where the profile compares features, their distance from those of the reconstruction is the last of the
    K residuals; ValueError when there are no `features`.
    """
    estimates = reconstruct(net, process, profile, images, seeds, should_stop)
    return compare_with_estimates(profile, images, estimates, features)


def compare_with_estimates(
    profile: Profile, images: Float, estimates: Float, features: Compare | None = None
) -> tuple[Float, Float]:
    """The second half of `residual_levels`, from healthy estimates `[B, K, C, H, W]` on."""
    healthy = np.asarray(estimates.mean(axis=1))
    levels = RESIDUALS[profile.map.residual](images[:, None], estimates)
    if profile.map.features != "none":
        if features is None:
            raise ValueError(f"the profile compares features of the {profile.map.features}: none are here")
        distance = features(profile.map.features, images, healthy)
        levels = np.concatenate([levels, distance[:, None]], axis=1)
    return levels, healthy


def score_image(
    levels: Float,
    reconstruction: Float,
    look: tuple[Float, Float | None] | None,
    spec: Profile,
    calibration: ProfileCalibration,
    positions: Mapping[EvidenceName, Float],
    kinds: Kinds | None = None,
    *,
    ignore: Mask | None = None,
) -> RawMap:
    """Residuals `[K, H, W]` of one image, the detector's evidence `[3, h, w]` and features `[D]` -> its map
    and score.

    Where `ignore` (of any size) is set the map is 0 and nothing counts; MaskError if that is everywhere.
    """
    size = (levels.shape[-2], levels.shape[-1])
    if ignore is not None:
        check_mask(ignore, size)
    # Hidden pixels are the lowest there are, so means of the highest are over what is inspected.
    top_fraction = spec.map.top_fraction * inspected_share(ignore, size)
    scales = np.asarray(calibration.residual_scales, dtype=np.float32)
    weights = spec.map.weights(spec.levels)
    smoothed = smoothed_residual(fill(levels, ignore), scales, spec.map.sigma_px, weights)
    if look is None:
        amap = hide(anomaly_map(smoothed, image_median=spec.map.image_median), ignore)
        score = image_score(amap, top_fraction)
    else:
        outputs, features = look
        evidence = gather(smoothed, fill(outputs, ignore), spec.map.sigma_px)
        found = deviations(evidence, calibration.evidence, positions)
        hidden = {name: hide(values, ignore, -np.inf) for name, values in found.items()}
        usual = {} if kinds is None or features is None else kinds.usual(features)
        amap, score = weigh(hidden, calibration.evidence, usual, top_fraction)
    amap, score = lift_unfamiliar(
        amap,
        score,
        float(np.median(outside(smoothed, ignore))),
        calibration.medians,
        calibration.score,
    )
    return RawMap(amap, reconstruction, score)


def gather(smoothed: Float, look: Float, sigma_px: float) -> dict[EvidenceName, Float]:
    """All evidence on one image, `[H, W]` each, from its smoothed residual and the detector's outputs."""
    found = detector_evidence(look, smoothed.shape, sigma_px)
    return {"residual": log_residual(smoothed), **found}
