"""Calibration on the contaminated training images themselves: scales, trust, score location, thresholds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from models.anomaly import (
    ScoreCalibration,
    anomaly_map,
    fit_median_calibration,
    image_score,
    smoothed_residual,
)
from models.bundle import ProfileCalibration, Thresholds
from models.corruption import Corruption
from models.empirical_null import Null, fit_null
from models.engine import as_denoiser
from models.evidence import (
    EvidenceCalibration,
    EvidenceName,
    ImageCalibration,
    Look,
    correct,
    deviations,
    resize,
    weigh,
)
from models.kinds import Kinds
from models.masks import Mask, fill, hide, inspected_share, outside
from models.preprocess import shrink, to_float
from models.process import DiffusionProcess
from models.profiles import Profile
from models.samplers import Denoiser
from models.scoring import gather, residual_levels
from models.tiles import Compare
from trainer.batches import REFERENCE_PX
from trainer.kinds import fit_kinds, lower_spread, usual_of_all
from trainer.position import usual_per_place
from trainer.recipe import Calibration
from trainer.trust import Trust, compare, share_weights

Float = NDArray[np.float32]
Evidence = dict[EvidenceName, Float]
Report = Callable[[str, int, int], None]
"""Called with (profile, images done, images in all)."""
LookAt = Callable[[Float, NDArray[np.int64]], Look]
"""What the detector says of training images `[B, C, H, W]` with these indices."""

SCALE_HEADROOM = 1.25
"""Top of the fixed colour scale over the reject threshold: what is rejected is bright, not blinding."""
_SCALE_IMAGES = 48  # a spread sample is enough for the typical residual of a level
_PAINTED_IMAGES = 96
_TINY = 1e-6
_LEAST_SPREAD = 0.05
"""Of evidence, which is logarithmic: finer differences are the runtimes' rounding, not the parts'."""


@dataclass(frozen=True)
class Calibrated:
    """One profile's calibration and the raw scores it rests on, in the order of `indices`."""

    calibration: ProfileCalibration
    indices: NDArray[np.int64]  # [N] into the training set
    scores: NDArray[np.float64]  # [N] raw
    null: Null
    positions: Evidence = field(default_factory=dict)
    kinds: Kinds | None = None
    trust: dict[EvidenceName, Trust] = field(default_factory=dict)


@dataclass(frozen=True)
class Models:
    """What is calibrated: the network, how images reach it, and whatever else the bundle looks with."""

    net: Denoiser
    process: DiffusionProcess
    clean_scale: float = 0.0
    reduce: int = 1
    features: Compare | None = None
    ignore: Mask | None = None
    """Where parts are not inspected."""
    look: LookAt | None = None
    """What the detector says of training images `[B, C, H, W]`, by their indices, as if they were new
    (`trainer.unseen`)."""

    def levels(self, profile: Profile, images: Float, seeds: Sequence[int]) -> Float:
        """Images `[B, C, H, W]` -> residuals `[B, K, h, w]`."""
        net = as_denoiser(self.net, self.process, self.clean_scale)
        small = shrink(images, self.reduce)
        found, _ = residual_levels(net, self.process, profile, small, seeds, features=self.features)
        return fill(found, self.ignore)


def calibration_subset(images: int, calls_per_image: int, spec: Calibration, seed: int) -> NDArray[np.int64]:
    """A seeded sample as large as the budget of network calls allows, never below `min_images`.

    Images that cost no calls are not limited.
    """
    wanted = max(spec.min_images, spec.max_calls // calls_per_image) if calls_per_image else images
    return np.sort(np.random.default_rng((seed, 1)).permutation(images)[:wanted])


def calibrate_profile(
    models: Models,
    name: str,
    profile: Profile,
    pixels: NDArray[np.uint8],
    seeds: list[int],
    spec: Calibration,
    *,
    subset_seed: int,
    whole_set: bool = False,
    trust: dict[EvidenceName, Trust] | None = None,
    batch_size: int = 8,
    report: Report = lambda profile, done, total: None,
) -> Calibrated:
    """Run a profile over training images `pixels [N, C, H, W]` and learn what is usual for it.

    A seeded sample within the recipe's budget of network calls is used, or the `whole_set`. With a
    detector, `trust` is measured on painted defects unless it is given (from a cheaper profile).
    """
    calls = 0 if whole_set else profile.network_calls
    indices = calibration_subset(len(pixels), calls, spec, subset_seed)
    first = indices[:: max(1, len(indices) // _SCALE_IMAGES)]
    typical = [models.levels(profile, to_float(pixels[i : i + 1]), [seeds[i]])[0] for i in first]
    scales = np.maximum(np.median(np.stack(typical), axis=(0, 2, 3)), _TINY).astype(np.float32)
    look = _Look(models, profile, scales, batch_size)

    smoothed, evidence, features = look(
        to_float_rows(pixels, indices),
        indices,
        [seeds[i] for i in indices],
        lambda n: report(name, n, len(indices)),
    )
    ignore = models.ignore
    top_fraction = profile.map.top_fraction * inspected_share(ignore, smoothed.shape[1:])
    medians = fit_median_calibration(np.array([np.median(outside(image, ignore)) for image in smoothed]))
    weighed: dict[EvidenceName, EvidenceCalibration] = {}
    positions: Evidence = {}
    kinds = None
    if evidence:
        if trust is None:
            trust = _measure(look, profile, pixels, seeds, indices, evidence, subset_seed)
        for kind, values in evidence.items():
            weighed[kind], place = _weigh(values, trust[kind], ignore)
            if place is not None:
                positions[kind] = place
        weighed, kinds, scores = _judge_images(
            evidence, features, weighed, positions, trust, top_fraction, ignore
        )
    else:
        fused = [anomaly_map(image, image_median=profile.map.image_median) for image in smoothed]
        scores = np.array([image_score(hide(amap, ignore), top_fraction) for amap in fused])
    null = fit_null(np.log(np.maximum(scores, 0.0) + _TINY), subset_seed)
    suggested = suggest_thresholds(spec)
    return Calibrated(
        calibration=ProfileCalibration(
            residual_scales=tuple(float(scale) for scale in scales),
            score_location=null.location,
            score_scale=null.scale,
            median_location=medians.location,
            median_scale=medians.scale,
            suggested=suggested,
            map_max=SCALE_HEADROOM * ScoreCalibration(null.location, null.scale).raw(suggested.reject),
            images=len(indices),
            evidence=weighed,
        ),
        indices=indices,
        scores=scores,
        null=null,
        positions=positions,
        kinds=kinds,
        trust={} if trust is None else trust,
    )


def to_float_rows(pixels: NDArray[np.uint8], indices: NDArray[np.int64]) -> Callable[[int, int], Float]:
    """Rows of the training set as network input, a batch at a time."""
    return lambda start, stop: to_float(pixels[indices[start:stop]])


class _Look:
    """Smoothed residuals, evidence and mean features of many images."""

    def __init__(self, models: Models, profile: Profile, scales: Float, batch_size: int) -> None:
        self._models, self._profile, self._scales, self._batch = models, profile, scales, batch_size

    def __call__(
        self,
        rows: Callable[[int, int], Float],
        indices: NDArray[np.int64],
        seeds: Sequence[int],
        done: Callable[[int], None],
    ) -> tuple[Float, Evidence, Float | None]:
        """-> smoothed residuals `[N, h, w]`, evidence `[N, h, w]` each (none without a detector), and mean
        features `[N, D]`."""
        sigma, weights = self._profile.map.sigma_px, self._profile.map.weights(self._profile.levels)
        smoothed: list[Float] = []
        kinds: dict[EvidenceName, list[Float]] = {}
        features: list[Float] = []
        for start in range(0, len(seeds), self._batch):
            some = seeds[start : start + self._batch]
            images = rows(start, start + len(some))
            levels = self._models.levels(self._profile, images, some)
            look = self._models.look
            looks = None if look is None else look(images, indices[start : start + len(some)])
            if looks is not None and looks.features is not None:
                features.append(looks.features)
            for row, residuals in enumerate(levels):
                amap = smoothed_residual(residuals, self._scales, sigma, weights)
                smoothed.append(amap)
                if looks is not None:
                    seen = fill(looks.evidence[row], self._models.ignore)
                    for kind, values in gather(amap, seen, sigma).items():
                        kinds.setdefault(kind, []).append(values)
            done(len(smoothed))
        return (
            np.stack(smoothed),
            {kind: np.stack(maps) for kind, maps in kinds.items()},
            np.concatenate(features) if features else None,
        )


def _measure(
    look: _Look,
    profile: Profile,
    pixels: NDArray[np.uint8],
    seeds: list[int],
    indices: NDArray[np.int64],
    evidence: Evidence,
    seed: int,
) -> dict[EvidenceName, Trust]:
    """Trust from one painted defect in each of a sample of the images that `evidence` is of."""
    rng = np.random.default_rng((seed, 5))
    chosen = np.sort(rng.permutation(len(indices))[:_PAINTED_IMAGES])
    corrupt = Corruption(probability=1.0, second=0.0)
    unit = max(pixels.shape[2:]) / REFERENCE_PX
    painted, masks = [], []
    for row in chosen:
        image, lender = to_float(pixels[indices[row]]), to_float(pixels[rng.integers(len(pixels))])
        dirty, where = corrupt(image, lender, rng, unit)
        painted.append(dirty)
        masks.append(resize(where.astype(np.float32), next(iter(evidence.values())).shape[1:]) >= 0.5)
    stack, where_changed = np.stack(painted), np.stack(masks)
    _, after, _ = look(
        lambda a, b: stack[a:b], indices[chosen], [seeds[i] for i in indices[chosen]], lambda n: None
    )
    best: dict[EvidenceName, Trust] = {}
    for kind, maps in evidence.items():
        flags = (profile.map.image_median,) if kind == "residual" else (False, True)
        options = []
        for flag in flags:
            place = usual_per_place(_corrected(maps, flag, None))
            before, later = (_corrected(e, flag, place) for e in (maps[chosen], after[kind]))
            options.append(compare(before, later, where_changed, profile.map.top_fraction, flag))
        best[kind] = max(options, key=lambda option: option.separation)
    return share_weights(best)


def _corrected(maps: Float, image_median: bool, place: Float | None) -> Float:
    return np.stack([correct(amap, image_median, place) for amap in maps])


def _weigh(maps: Float, trust: Trust, ignore: Mask | None) -> tuple[EvidenceCalibration, Float | None]:
    """Location and scale of one kind of evidence `[N, h, w]`, and its usual value per place if it has one."""
    place = usual_per_place(_corrected(maps, trust.image_median, None))
    corrected = _corrected(maps, trust.image_median, place)
    inspected = np.concatenate([outside(amap, ignore) for amap in corrected])
    values = inspected[:: max(1, inspected.size // 2_000_000)]
    location = float(np.median(values))
    spread = max(1.4826 * float(np.median(np.abs(values - location))), _LEAST_SPREAD)
    return (
        EvidenceCalibration(
            location=location, scale=spread, image_median=trust.image_median, weight=trust.weight
        ),
        place,
    )


def _judge_images(
    evidence: Evidence,
    features: Float | None,
    weighed: Mapping[EvidenceName, EvidenceCalibration],
    positions: Evidence,
    trust: Mapping[EvidenceName, Trust],
    top_fraction: float,
    ignore: Mask | None,
) -> tuple[dict[EvidenceName, EvidenceCalibration], Kinds | None, NDArray[np.float64]]:
    """How high evidence `[N, h, w]` rises in usual images and in those of each kind -> the calibration with
    that in it, the kinds, and the scores `[N]` that the images get by it."""
    images = range(len(next(iter(evidence.values()))))
    deviating = [deviations({k: m[row] for k, m in evidence.items()}, weighed, positions) for row in images]
    deviating = [{k: hide(of[k], ignore, -np.inf) for k in of} for of in deviating]
    tops = {k: np.array([image_score(of[k], top_fraction) for of in deviating], np.float32) for k in evidence}
    kinds = None if features is None else fit_kinds(features, tops)
    usual = {} if kinds is None else usual_of_all(kinds)
    calibration = {}
    for kind, values in tops.items():
        above = values - usual.get(kind, np.float32(0.0))
        image = ImageCalibration(
            location=float(np.median(above)), scale=lower_spread(above), weight=trust[kind].image_weight
        )
        calibration[kind] = weighed[kind].model_copy(update={"image": image})
    scores = [
        weigh(of, calibration, {k: float(u[row]) for k, u in usual.items()}, top_fraction)[1]
        for row, of in enumerate(deviating)
    ]
    return calibration, kinds, np.array(scores)


def suggest_thresholds(spec: Calibration) -> Thresholds:
    """Calibrated scores that the target shares of good parts exceed, if good log scores are normal.

    Location and scale are good parts' own (`models.empirical_null`), so contaminants do not push the
    thresholds up.
    """
    normal = NormalDist()
    return Thresholds(
        review=normal.inv_cdf(1 - spec.review_rate), reject=normal.inv_cdf(1 - spec.reject_rate)
    )
