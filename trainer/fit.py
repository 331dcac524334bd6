"""`fit`: a folder of unlabeled images in, a verified bundle out."""

import csv
import importlib.metadata
import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from models.bundle import (
    FEATURES_FILE,
    THUMBNAILS_FILE,
    Bundle,
    DetectorInfo,
    Manifest,
    Network,
    Retrained,
    TrainingData,
    expected_files,
    write_bundle,
)
from models.engine_onnx import OnnxDenoiser, OnnxDetector, OnnxFeatures
from models.features import feature_distance
from models.masks import Mask
from models.parts import for_part, of_part, per_part
from models.preprocess import to_float
from models.tiles import tiled, tiled_compare
from trainer.adapt import adapt, sample_sizes
from trainer.calibrate import Calibrated, LookAt, Models
from trainer.calibrate_all import (
    AUDIT_PROFILE,
    Suspect,
    calibrate_all,
    describe_data,
    rank_images,
    trust_metrics,
    trusts,
    write_calibration,
)
from trainer.carryover import with_limits
from trainer.checkpoint import find_checkpoint
from trainer.console import Stages
from trainer.continual.plan import Continual
from trainer.data import Mix, TrainingSet, choose_files, load_training_set, relative_names, rows_in
from trainer.detail import sample_detail
from trainer.detector_fit import choose_backbone, resumable_detector
from trainer.device import Device
from trainer.export import (
    Networks,
    check_networks,
    write_detector,
    write_features,
    write_onnx,
    write_weights,
)
from trainer.heldout import Again, audited, divide
from trainer.loop import Trained, learning_rate
from trainer.marks import Marks
from trainer.masks import fit_mask
from trainer.outer import OUTERS, Outer, Run
from trainer.parts import find_parts
from trainer.recipe import Recipe, RecipeError
from trainer.report import write_report
from trainer.thumbnails import COUNT as THUMBNAILS
from trainer.thumbnails import write_thumbnails
from trainer.trust import Trust
from trainer.unseen import cross_fit

DIFFUSION_SHARE = 0.6  # of limited minutes; the detector gets the rest
GOLDEN = 4  # training images on which ONNX must equal torch
LIBRARIES = ("torch", "accelerate", "onnx", "onnxruntime", "numpy", "opencv-python-headless", "safetensors")


@dataclass(frozen=True)
class FitResult:
    bundle: Bundle
    data: TrainingSet
    trained: Trained
    parity: float


def fit(
    folder: Path,
    recipe: Recipe,
    out: Path,
    device: Device,
    stages: Stages,
    *,
    name: str,
    version: str | None = None,
    mix: Mix | None = None,
    max_minutes: float | None = None,
    resume: bool = False,
    weights: Path | None = None,
    fixed: Collection[str] = (),
    mask: Mask | None = None,
    again: Again | None = None,
    marks: Marks | None = None,
    continual: Continual | None = None,
) -> FitResult:
    """Train on every image below `folder` and publish the bundle at `out/bundle`.

    `out` also keeps the resolved recipe, the loss curve, the checkpoint and the list of skipped files.
    With `data.parts = "folders"` every folder in `folder` is a kind of part. Settings in `fixed` are not
    adapted to the images. Where `mask` is set nothing is calibrated, nor inspected later. `again` goes on
    from an earlier bundle, and calibrates on images that are not trained on. Images that `marks` call
    defective are left out, and those they call fine never are for looking suspicious. `continual` adds parts
    to those of another bundle. Raises DataError, MarksError, RecipeError, CheckpointError, TrainingError,
    ExportError, FileExistsError.
    """
    check_names(name, version)
    outer: Outer = recipe.training.outer.build("outer loop", OUTERS)
    target = out / "bundle"
    if target.exists():
        raise FileExistsError(f"{target} exists and a bundle is never changed; choose another --out")
    started = find_checkpoint(out / "checkpoint") is not None
    if started and not resume:
        raise FileExistsError(
            f"{out} holds an unfinished run; add --resume to go on, or choose another --out"
        )
    files, mixed = choose_files(folder, mix)
    parts = find_parts(recipe, folder, files, mix)
    if continual is not None and parts is not None:
        files, parts = continual.ordered(files, parts)
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"--out {out} is a file; name a folder")
    out.mkdir(parents=True, exist_ok=True)
    recipe = adapt(recipe, sample_sizes(files), len(files), device, fixed, partial(sample_detail, files))
    data = _load(files, mixed, parts, recipe, out, stages, marks)
    division = divide(data, () if again is None else again.held_out, out / "cache")
    learned = division.learned
    ignore = None if mask is None else fit_mask(mask, data.preprocess, recipe.network.reduce)
    if not started:
        (out / "recipe.json").write_text(recipe.model_dump_json(indent=2) + "\n", encoding="utf-8")

    backbone = choose_backbone(recipe, weights)
    share = 1.0 if recipe.detector is None else DIFFUSION_SHARE
    minutes = None if max_minutes is None else share * max_minutes
    run = Run(recipe, learned, out, device, stages, resume, minutes)
    if again is not None:
        run = replace(run, initial=again.initial)
    if continual is not None:
        run = continual.run(run)
    trained, kept = outer(run)
    if continual is not None:
        kept = continual.widened(learned, run.data, kept, out / "cache" / "kept.npy")
    _write_rows(out / "loss.csv", ("step", "loss"), enumerate(trained.progress.losses, start=1))
    detector = unseen = None
    if recipe.detector is not None and backbone is not None:
        with stages("training the detector", recipe.detector.steps) as advance:
            detector, sample = resumable_detector(
                out / "detector",
                recipe,
                kept,
                device,
                backbone,
                weights=weights,
                resume=resume,
                max_minutes=None if max_minutes is None else (1 - share) * max_minutes,
                report=lambda done, total, loss: advance(done, f"loss {loss:.4f} · step {done} of {total}"),
            )
            unseen = cross_fit(detector, sample, rows_in(learned, kept), learned.pixels, recipe.training.seed)

    parity = 0.0

    def fill(work: Path) -> Manifest:
        nonlocal parity
        net, process = trained.net, recipe.process.build()
        write_weights(net, work / "model.safetensors")
        write_onnx(net, work / "model.onnx", data.preprocess.channels, net.config.stride, len(data.parts))
        if detector is not None:
            write_weights(detector, work / "detector.safetensors")
            write_detector(detector, work / "detector.onnx", data.preprocess.channels)
        exported = OnnxDenoiser(work / "model.onnx")
        tiles = recipe.network.tile_px, recipe.network.overlap_px
        features = distance = None
        if recipe.feature_sources:
            eyes = None if detector is None else detector.backbone
            distance = feature_distance(recipe.feature_sources, net, eyes)
            write_features(distance, work / FEATURES_FILE, data.preprocess.channels)
            features = tiled_compare(OnnxFeatures(work / FEATURES_FILE), *tiles)
        golden = to_float(data.pixels[:GOLDEN])
        networks = Networks(net, detector, distance)
        parity = check_networks(
            networks, work, golden, recipe.network.reduce, process, recipe.largest_timestep
        )

        def models_of(label: int | None, new: LookAt | None) -> Models:
            network, denoiser = recipe.network, tiled(of_part(exported, label), *tiles)
            return Models(denoiser, process, network.clean_scale, network.reduce, features, ignore, look=new)

        def learned_ones(label: int | None) -> Models:
            rows = None if label is None else learned.groups[label][1]
            return models_of(label, unseen if rows is None or unseen is None else unseen.rows(rows))

        def held_out_ones(label: int | None) -> Models:
            if detector is None:
                return models_of(label, None)
            look = OnnxDetector(work / "detector.onnx")
            return models_of(label, lambda images, _: look(images))

        calibrated = calibrate_all(
            recipe, division.calibrated, held_out_ones if division.apart else learned_ones, stages
        )
        record = None
        if again is not None:
            calibrated, carried = with_limits(calibrated, division.calibrated.paths, again.before)
            record = again.record.model_copy(update={"limits_carried": carried})
        ranked = calibrated
        if division.apart:
            found, profile = calibrated[AUDIT_PROFILE], recipe.profiles[AUDIT_PROFILE]
            ranked = {AUDIT_PROFILE: audited(data, division, found, learned_ones(None), profile)}
        write_calibration(calibrated, work / "calibration.safetensors", ignore)
        suspects = rank_images(data, ranked)
        lines = (
            (rank, name, f"{score:.4f}", data.hashes[row])
            for rank, (name, score, row) in enumerate(suspects, start=1)
        )
        _write_rows(work / "audit.csv", ("rank", "image", "calibrated_score", "sha256"), lines)
        first = [data.pixels[row] for _, _, row in suspects[:THUMBNAILS]]
        write_thumbnails(work / THUMBNAILS_FILE, first)
        info = None
        if detector is not None and backbone is not None:
            info = DetectorInfo(backbone=backbone, **detector.config.to_dict())
        manifest = _manifest(recipe, data, trained, info, calibrated, name, version, parity, ignore, record)
        if continual is not None:
            manifest = continual.noted(manifest, run.data)
        _write_report(work / "report.html", recipe, data, trained, calibrated, suspects, manifest)
        return manifest

    return FitResult(write_bundle(target, fill), data, trained, parity)


def check_names(name: str, version: str | None) -> None:
    """RecipeError for a name or version that the manifest would refuse after hours of training."""
    for what, field, value in (("name", "name", name), ("--model-version", "version", version)):
        pattern = next(m.pattern for m in Manifest.model_fields[field].metadata if hasattr(m, "pattern"))
        if value is not None and not re.match(pattern, value):
            raise RecipeError(f"{what} {value!r} must be letters, digits, '.', '_', '-' ({pattern})")


def _load(
    files: list[Path],
    mixed: list[bool],
    parts: list[str] | None,
    recipe: Recipe,
    out: Path,
    stages: Stages,
    marks: Marks | None,
) -> TrainingSet:
    with stages("reading images", len(files)) as advance:
        data = load_training_set(
            files,
            mixed,
            recipe.data.height_width,
            recipe.data.channels,
            out / "cache" / "images.npy",
            progress=lambda done, total: advance(done, ""),
            parts=parts,
            marks=marks,
        )
    _write_rows(out / "skipped.csv", ("path", "reason"), data.skipped)
    if marks is not None:
        _write_rows(out / "left_out.csv", ("path",), ((path,) for path in data.left_out))
    if any(mixed):
        names = relative_names(data.paths)
        _write_rows(out / "mixed.csv", ("path", "mixed_in"), zip(names, map(int, data.mixed), strict=True))
    return data


def _manifest(
    recipe: Recipe,
    data: TrainingSet,
    trained: Trained,
    detector: DetectorInfo | None,
    calibrated: dict[str, Calibrated],
    name: str,
    version: str | None,
    parity: float,
    ignore: Mask | None,
    retrained: Retrained | None,
) -> Manifest:
    now = datetime.now(UTC)
    losses = trained.progress.losses
    parts = [part for part, _ in data.groups]
    return Manifest(
        name=name,
        version=version or now.strftime("%Y%m%d-%H%M%S"),
        created_at=now.isoformat(timespec="seconds"),
        files=dict.fromkeys(
            (*expected_files(recipe.profiles, detector=detector is not None), THUMBNAILS_FILE), "0" * 64
        ),
        recipe=recipe.model_dump(mode="json"),
        network=Network(
            **trained.net.config.to_dict(),
            **recipe.network.model_dump(include={"reduce", "tile_px", "overlap_px"}),
        ),
        detector=detector,
        preprocess=data.preprocess,
        process=recipe.process,
        parts=data.parts,
        profiles=per_part(recipe.profiles, parts),
        default_profile={"cpu": for_part("fast", parts[0]), "gpu": for_part("paper", parts[0])},
        calibration={key: found.calibration for key, found in calibrated.items()},
        metrics={
            "protocol": "training run: loss averaged over the last 100 steps; no labels were used",
            "steps": trained.progress.step,
            "training_seconds": round(trained.progress.seconds, 1),
            "precision": trained.progress.precision,
            "final_loss": float(np.mean(losses[-100:])),
            "onnx_max_abs_difference": parity,
            "trust": trust_metrics(trusts(data, calibrated)),
        },
        training_data=describe_data(data, calibrated, ignore, retrained),
        libraries={library: importlib.metadata.version(library) for library in LIBRARIES},
    )


def _write_report(
    path: Path,
    recipe: Recipe,
    data: TrainingSet,
    trained: Trained,
    calibrated: dict[str, Calibrated],
    suspects: list[Suspect],
    manifest: Manifest,
) -> None:
    total = trained.progress.total_steps
    write_report(
        path,
        recipe=recipe.model_dump(mode="json"),
        loss_curve=list(enumerate(trained.progress.losses, start=1)),
        lr_curve=[(step + 1, learning_rate(step, total, recipe.training)) for step in range(total)],
        scores={name: np.sort(found.scores) for name, found in calibrated.items()},
        calibration={name: found.calibration for name, found in calibrated.items()},
        audit=[(name, score, data.pixels[index]) for name, score, index in suspects[:24]],
        summary={
            "model": f"{manifest.name} {manifest.version}",
            "training images": len(data.paths),
            **{f"images of {part}": rows.stop - rows.start for part, rows in data.groups if part},
            "skipped files": len(data.skipped),
            **({"marked as defective, left out": len(data.left_out)} if data.left_out else {}),
            "estimated contamination": _contamination(manifest.training_data),
            "snapshot": data.snapshot,
            **{key: value for key, value in manifest.metrics.items() if key != "trust"},
            **{f"trust in {kind}": _trust(trust) for kind, trust in trusts(data, calibrated).items()},
        },
    )


def _contamination(data: TrainingData) -> str:
    low, high = data.contamination_interval or (data.estimated_contamination,) * 2
    return f"{data.estimated_contamination:.1%} (90 % interval {low:.1%} to {high:.1%})"


def _trust(trust: Trust) -> str:
    own = ", less the image's median" if trust.image_median else ""
    return (
        f"weight {trust.weight:.2f} in the map{own}, {trust.image_weight:.2f} in the score; "
        f"painted defects: image AUROC {trust.image_auroc:.2f}, pixel AUROC {trust.pixel_auroc:.2f}"
    )


def _write_rows(path: Path, header: tuple[str, ...], rows: Any) -> None:
    # A file name need not be UTF-8; it is still listed, with what is not escaped.
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
