"""Measure a bundle on labelled images: detection, localisation, reconstruction error and time."""

import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from models.anomaly import Verdict, verdict
from models.bundle import Bundle
from models.decode import decode
from models.engine import Engine, open_engine
from models.preprocess import Preprocess, shrink, to_float, to_pixels, to_uint8
from trainer.console import Stages, quiet, without_note
from trainer.metrics import (
    DetectionMetrics,
    SquaredError,
    aupro,
    detection_metrics,
    pixel_metrics,
    rank_pixels,
    sorted_pixels,
    squared_error,
)
from trainer.parts import require_profile
from trainer.protocol import FPR_LIMIT, Settings, describe
from trainer.results import EvaluationResult, GoodResult, ImageResult, ProfileResult, Timing, TypeResult
from trainer.scorer import Scorer, profile_scorer
from trainer.sheet import Case, SheetScale, choose_cases
from trainer.testset import (
    EvaluationError,
    EvaluationSet,
    LabelledImage,
    Mask,
    Sources,
    evenly,
    find_entries,
    load_entries,
    shrink_mask,
)

Float = NDArray[np.float32]

LATENCY_IMAGES = 3


@dataclass(frozen=True)
class _Outputs:
    """What a scorer said of every image, in the order of the images."""

    scores: list[float]  # raw
    maps: list[Float]  # [h, w] at the metric size
    reconstructions: list[NDArray[np.uint8]]  # [H, W, C]; empty where nothing is reconstructed
    errors: list[SquaredError]
    seconds: list[float]  # engine time per image


def evaluate(
    bundle: Bundle,
    sources: Sources,
    profiles: Sequence[str],
    settings: Settings = Settings(),  # noqa: B008 - frozen
    stages: Stages = quiet,
) -> EvaluationResult:
    """Run profiles of a bundle over labelled images, decoded once, and measure each.

    `profiles` are names or "all". Raises EvaluationError with what to change; PartError when a bundle of
    several parts is to be measured under all.
    """
    require_profile(bundle.manifest, profiles)
    names = profile_names(bundle, profiles)
    engine = _open(bundle, settings)
    images, files = load_images(sources, bundle.manifest.preprocess, settings, stages)
    found = {}
    for name in names:
        with stages(f"profile {name}", len(images.images)) as advance:
            found[name] = evaluate_profile(engine, images, name, settings.batch_size, without_note(advance))
    manifest = bundle.manifest
    model = {"name": manifest.name, "version": manifest.version, "bundle_sha256": bundle.hash}
    return EvaluationResult(describe(model, sources, settings, images, files), found)


def load_images(
    sources: Sources, spec: Preprocess, settings: Settings, stages: Stages = quiet
) -> tuple[EvaluationSet, int]:
    """Decode the labelled images that `settings` asks for -> them, and how many files there are in all."""
    entries = find_entries(sources)
    chosen = [entries[i] for i in evenly(len(entries), settings.limit)]
    with stages("reading images", len(chosen)) as advance:
        return load_entries(chosen, spec, settings.metric_px, without_note(advance)), len(entries)


def profile_names(bundle: Bundle, asked: Sequence[str]) -> list[str]:
    """Resolve "all" and check names; EvaluationError lists what the bundle has."""
    known = list(bundle.manifest.profiles)
    if "all" in asked:
        return known
    unknown = [name for name in asked if name not in known]
    if unknown or not asked:
        raise EvaluationError(f"the bundle has no profile {unknown}; choose among {', '.join(known)}, or all")
    return list(dict.fromkeys(asked))


def _open(bundle: Bundle, settings: Settings) -> Engine:
    if settings.batch_size < 1:
        raise EvaluationError(f"the batch size must be at least 1, got {settings.batch_size}")
    return open_engine(bundle, settings.runtime, settings.device, settings.threads)


def evaluate_profile(
    engine: Engine,
    images: EvaluationSet,
    profile: str,
    batch_size: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ProfileResult:
    """Run one profile over the images and measure it overall and per defect type."""
    return evaluate_scorer(profile_scorer(engine, profile), images, batch_size, progress)


def evaluate_scorer(
    scorer: Scorer,
    images: EvaluationSet,
    batch_size: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ProfileResult:
    """Run anything that scores over the images and measure it overall and per defect type."""
    alone = _seconds_alone(scorer, images.images[:LATENCY_IMAGES])
    outputs, batches = _run(scorer, images.images, batch_size, progress)
    lines = _image_results(images.images, outputs, scorer)
    good = [i for i, image in enumerate(images.images) if not image.defective]
    good_pixels = sorted_pixels([outputs.maps[i] for i in good])

    def measured(chosen: list[int]) -> TypeResult:
        return _type_result(images, outputs, lines, chosen, good, good_pixels)

    by_type = {k: [i for i, image in enumerate(images.images) if image.kind == k] for k in images.kinds}
    limits = scorer.thresholds
    return ProfileResult(
        profile=scorer.name,
        spec=scorer.spec,
        thresholds={"review": limits.review, "reject": limits.reject},
        timing=Timing(
            scorer.network_calls, min(batch_size, len(images.images)), statistics.median(batches), alone
        ),
        overall=measured([i for chosen in by_type.values() for i in chosen]),
        types={kind: measured(chosen) for kind, chosen in by_type.items()},
        good=_good_result(outputs, lines, good),
        images=lines,
        cases=_cases(images.images, outputs, lines),
        scale=SheetScale(
            scorer.map_max, scorer.calibration.raw(limits.review), scorer.calibration.raw(limits.reject)
        ),
    )


def _seconds_alone(scorer: Scorer, images: Sequence[LabelledImage]) -> float:
    """Median engine time of a batch of one, after one run to warm up."""
    times = []
    for image in [images[0], *images]:
        began = time.perf_counter()
        scorer.run(to_float(image.pixels[None]), [image.seed])
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def _run(
    scorer: Scorer,
    images: Sequence[LabelledImage],
    batch_size: int,
    progress: Callable[[int, int], None],
) -> tuple[_Outputs, list[float]]:
    """All images through the scorer -> outputs, and seconds per image of every batch."""
    outputs, batches = _Outputs([], [], [], [], []), []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        inputs = to_float(np.stack([image.pixels for image in batch]))
        began = time.perf_counter()
        results = scorer.run(inputs, [image.seed for image in batch])
        batches.append((time.perf_counter() - began) / len(batch))
        for image, x, result in zip(batch, inputs, results, strict=True):
            if not (np.isfinite(result.score) and np.isfinite(result.map).all()):
                raise EvaluationError(f"{scorer.name} gave {image.name} a score that is not a number")
            outputs.scores.append(result.score)
            outputs.maps.append(fit_map(result.map, image.mask.shape))
            healthy = result.reconstruction
            if healthy is not None:
                outputs.reconstructions.append(to_pixels(healthy))
            outputs.errors.append(
                SquaredError() if healthy is None else _error(x, healthy, image.network_mask)
            )
            outputs.seconds.append(batches[-1])
        progress(len(outputs.scores), len(images))
    return outputs, batches


def _error(image: Float, healthy: Float, mask: Mask) -> SquaredError:
    """At the size of the reconstruction, which a bundle may make smaller than its input."""
    size = healthy.shape[1:]
    return squared_error(shrink(image, image.shape[1] // size[0]), healthy, shrink_mask(mask, size))


def fit_map(amap: Float, size: tuple[int, ...]) -> Float:
    """Resize a map `[H, W]` to the size of its mask: bilinear, by area where it shrinks."""
    height, width = size
    shrinking = height * width < amap.size
    return np.asarray(
        cv2.resize(amap, (width, height), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR)
    )


def _image_results(images: Sequence[LabelledImage], outputs: _Outputs, scorer: Scorer) -> list[ImageResult]:
    limits, lines = scorer.thresholds, []
    for image, raw, seconds in zip(images, outputs.scores, outputs.seconds, strict=True):
        calibrated = scorer.calibration.calibrate(raw)
        decided = verdict(calibrated, limits.review, limits.reject)
        lines.append(ImageResult(image.name, image.kind, raw, calibrated, decided.value, seconds))
    return lines


def _type_result(
    images: EvaluationSet,
    outputs: _Outputs,
    lines: Sequence[ImageResult],
    chosen: list[int],
    good: list[int],
    good_pixels: Float,
) -> TypeResult:
    scores = np.array([outputs.scores[i] for i in chosen + good])
    image = detection_metrics(np.arange(len(scores)) < len(chosen), scores)
    pixel, overlap, error = DetectionMetrics(None, None, None), None, SquaredError()
    if images.has_masks:
        ranking = rank_pixels(
            [outputs.maps[i] for i in chosen], [images.images[i].mask for i in chosen], good_pixels
        )
        pixel, overlap = pixel_metrics(ranking), aupro(ranking, FPR_LIMIT)
        error = sum((outputs.errors[i] for i in chosen), SquaredError())
    verdicts = _verdicts(lines, chosen)
    return TypeResult(
        images=len(chosen),
        image_auroc=image.auroc,
        image_ap=image.average_precision,
        image_f1_max=image.f1_max,
        pixel_auroc=pixel.auroc,
        pixel_auprc=pixel.average_precision,
        pixel_aupro=overlap,
        pixel_f1_max=pixel.f1_max,
        mse_unmasked=error.mse_outside,
        mse_masked=error.mse_inside,
        verdicts=verdicts,
        escape=_share(verdicts, Verdict.PASS),
    )


def _good_result(outputs: _Outputs, lines: Sequence[ImageResult], good: list[int]) -> GoodResult:
    verdicts = _verdicts(lines, good)
    return GoodResult(
        images=len(good),
        mse=sum((outputs.errors[i] for i in good), SquaredError()).mse_outside,
        verdicts=verdicts,
        overkill=_share(verdicts, Verdict.REJECT),
        review_load=_share(verdicts, Verdict.REVIEW),
    )


def _verdicts(lines: Sequence[ImageResult], chosen: Sequence[int]) -> dict[str, int]:
    counts = Counter(lines[i].verdict for i in chosen)
    return {verdict.value: counts[verdict.value] for verdict in Verdict}


def _share(verdicts: dict[str, int], which: Verdict) -> float | None:
    total = sum(verdicts.values())
    return verdicts[which.value] / total if total else None


def _cases(images: Sequence[LabelledImage], outputs: _Outputs, lines: Sequence[ImageResult]) -> list[Case]:
    """The best and worst images, decoded again at the size of their map; none without reconstructions."""
    if not outputs.reconstructions:
        return []
    picked = choose_cases(np.array(outputs.scores), np.array([image.defective for image in images]))
    cases = []
    for group, indices in picked.items():
        for i in indices:
            (height, width), line = outputs.maps[i].shape, lines[i]
            shown = decode(images[i].path.read_bytes())
            channels: Literal[1, 3] = 3 if shown.pixels.shape[2] == 3 else 1
            spec = Preprocess(height=height, width=width, channels=channels)
            healthy = cv2.resize(outputs.reconstructions[i], (width, height), interpolation=cv2.INTER_CUBIC)
            cases.append(
                Case(
                    group=group,
                    name=line.path,
                    score=line.raw_score,
                    calibrated=line.calibrated_score,
                    verdict=line.verdict,
                    image=to_uint8(shown, spec).transpose(1, 2, 0),
                    reconstruction=np.asarray(healthy, dtype=np.uint8).reshape(height, width, -1),
                    map=outputs.maps[i],
                    mask=images[i].mask,
                )
            )
    return cases
