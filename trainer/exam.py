"""What two models are examined on - confirmed parts, missed defects, recent images - and what they say."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.anomaly import verdict_codes
from models.bundle import Bundle, ProfileCalibration, Retrained, Thresholds
from models.decode import DecodeError, Image, decode
from models.engine import Engine, open_engine
from models.masks import Mask
from models.preprocess import preprocess
from models.samplers import image_seed
from models.snapshot import MANIFEST, MASK, Manifest, SnapshotError, read_manifest, read_reviews, verify
from trainer.data import find_images
from trainer.errors import TrainerError
from trainer.masks import read_mask

Float64 = NDArray[np.float64]
Codes = NDArray[np.int64]
PASS, REVIEW, REJECT = range(3)
_BATCH = 8
_ROUNDS, _PAIRS = 5, 20


class GateError(TrainerError):
    """The gate cannot be held as asked; the message says what to change."""


@dataclass(frozen=True)
class Exam:
    """Images by what is known of them, and where none is inspected."""

    good: list[Path]
    defective: list[Path]
    escapes: list[Path]
    recent: list[Path]
    mask: Mask | None = None
    export: Manifest | None = None


@dataclass(frozen=True)
class Side:
    """A model under a profile with the limits that it decides by."""

    bundle: Bundle
    engine: Engine
    profile: str
    limits: Thresholds

    @property
    def calibration(self) -> ProfileCalibration:
        """With the limits it decides by as the suggested ones."""
        return self.bundle.manifest.calibration[self.profile].model_copy(update={"suggested": self.limits})

    @property
    def facts(self) -> dict[str, object]:
        manifest = self.bundle.manifest
        return {
            "name": manifest.name,
            "version": manifest.version,
            "bundle_sha256": self.bundle.hash,
            "profile": self.profile,
            **self.limits.model_dump(),
        }


@dataclass
class Said:
    """What a model says of images: raw and calibrated scores, and verdicts as codes, in their order."""

    raw: Float64
    calibrated: Float64
    verdicts: Codes


@dataclass
class Both:
    """What the candidate and the active model say of the same images."""

    paths: list[Path]
    candidate: Said
    active: Said
    skipped: list[str] = field(default_factory=list)


def read_exam(
    export: Path | None,
    golden: Path | None,
    escapes: Path | None,
    recent: int,
    retrained: Retrained | None = None,
) -> Exam:
    """Find the images; every export that one of the folders belongs to is compared with its hashes first.

    Folders not named are those of `export`. Where the candidate was `retrained` from this export, the recent
    images are those it was not trained on. Raises GateError, SnapshotError.
    """
    golden = golden or (export and export / "golden")
    escapes = escapes or (export and export / "escapes")
    if golden is None or escapes is None:
        raise GateError(
            "name the confirmed parts with --golden and --escapes, or a training set with --export"
        )
    for folder in (golden, escapes):
        if not folder.is_dir():
            raise GateError(f"{folder} is not a folder")
    around = {found for folder in (golden, escapes) if (found := _enclosing(folder)) is not None}
    manifests = {folder: verify(folder) for folder in around | ({export} if export else set())}
    mask = None if export is None or not (export / MASK).exists() else read_mask(export / MASK)
    return Exam(
        good=_images(golden / "good"),
        defective=_images(golden / "defective"),
        escapes=_images(escapes),
        recent=[] if export is None else _recent(export, manifests[export], retrained)[:recent],
        mask=mask,
        export=None if export is None else manifests[export],
    )


def _recent(export: Path, manifest: Manifest, retrained: Retrained | None) -> list[Path]:
    """What a model says of images it learned from is too low to be compared with another's."""
    images = _images(export / "train")
    if retrained is None or retrained.held_out_by is None or retrained.training_set != manifest.snapshot:
        return images
    by = retrained.held_out_by
    unseen = {line["image"] for line in read_reviews(export) if line[by] in retrained.held_out}
    return [path for path in images if path.relative_to(export).as_posix() in unseen]


def _enclosing(folder: Path) -> Path | None:
    """The export that a folder lies in."""
    for parent in (folder.parent, folder.parent.parent):
        try:
            read_manifest(parent)
        except SnapshotError:
            if (parent / MANIFEST).is_file() and b"inlier-training-set" in (parent / MANIFEST).read_bytes():
                raise
        else:
            return parent
    return None


def _images(folder: Path) -> list[Path]:
    """By name, which is a hash in an export: a part of them is a random one."""
    return find_images(folder) if folder.is_dir() and any(folder.iterdir()) else []


def open_side(
    bundle: Bundle,
    profile: str,
    limits: Thresholds | None,
    device: Literal["cpu", "gpu"] = "cpu",
    threads: int = 0,
) -> Side:
    """A bundle ready to be asked, by its own suggestion where no limits are given; GateError for a profile
    that it does not have."""
    known = bundle.manifest.calibration
    if profile not in known:
        raise GateError(f"{bundle.path} has no profile {profile}; choose among {', '.join(known)}")
    return Side(
        bundle,
        open_engine(bundle, "onnx", device, threads),
        profile,
        limits or known[profile].suggested,
    )


def ask_both(
    candidate: Side,
    active: Side,
    paths: Sequence[Path],
    mask: Mask | None,
    progress: Callable[[int, int], None],
    *,
    strict: bool = True,
) -> Both:
    """Both models on the same images, decoded once; an unreadable one is a GateError, or else skipped."""
    raw: dict[str, list[float]] = {"candidate": [], "active": []}
    read: list[Path] = []
    skipped: list[str] = []
    for batch in _batches(paths, skipped, strict):
        images = [image for _, image, _ in batch]
        seeds = [seed for _, _, seed in batch]
        for name, side in (("candidate", candidate), ("active", active)):
            raw[name] += _run(side, images, seeds, mask)
        read += [path for path, _, _ in batch]
        progress(len(read) + len(skipped), len(paths))
    return Both(read, _said(candidate, raw["candidate"]), _said(active, raw["active"]), skipped)


def ask(side: Side, paths: Sequence[Path], mask: Mask | None) -> Said:
    """One model on images that can all be read."""
    raw: list[float] = []
    for batch in _batches(paths, [], strict=True):
        raw += _run(side, [image for _, image, _ in batch], [seed for _, _, seed in batch], mask)
    return _said(side, raw)


def _batches(
    paths: Sequence[Path], skipped: list[str], strict: bool
) -> Iterator[list[tuple[Path, Image, int]]]:
    batch: list[tuple[Path, Image, int]] = []
    for path in paths:
        data = path.read_bytes()
        try:
            batch.append((path, decode(data), image_seed(data)))
        except DecodeError as error:
            if strict:
                raise GateError(f"{path} cannot be read ({error}); mend or remove it") from None
            skipped.append(path.name)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _run(side: Side, images: Sequence[Image], seeds: Sequence[int], mask: Mask | None) -> list[float]:
    spec = side.bundle.manifest.preprocess
    inputs = np.stack([preprocess(image, spec) for image in images])
    found = side.engine.run(inputs, seeds, side.profile, ignore=[mask] * len(inputs))
    return [one.score for one in found]


def _said(side: Side, raw: Sequence[float]) -> Said:
    """A score that is no number is rejected, as the service would not pass it."""
    calibrated = np.array([side.calibration.score.calibrate(score) for score in raw], dtype=np.float64)
    verdicts = verdict_codes(calibrated, side.limits.review, side.limits.reject)
    return Said(np.array(raw, dtype=np.float64), calibrated, verdicts)


@dataclass(frozen=True)
class Timing:
    """Engine time of a single image, in milliseconds, measured side by side."""

    candidate_ms: float  # median
    active_ms: float
    ratio: float  # median over pairs
    rounds: int


def time_both(
    candidate: Side, active: Side, paths: Sequence[Path], mask: Mask | None, limit: float
) -> Timing:
    """Turn about in one process, in rounds until one of them is within the limit, and the best of them.

    What else the machine does can make any round wrong, but hardly all of them, and in the same way.
    """
    images = [(decode(data), image_seed(data)) for path in paths[:8] for data in [path.read_bytes()]]
    best: Timing | None = None
    for number in range(1, _ROUNDS + 1):
        new, old = _round(candidate, active, images, mask)
        ratio = statistics.median(a / b for a, b in zip(new, old, strict=True))
        if best is None or ratio < best.ratio:
            best = Timing(statistics.median(new), statistics.median(old), ratio, number)
        if ratio <= limit:
            break
    assert best is not None
    return replace(best, rounds=number)


def _round(
    candidate: Side, active: Side, images: Sequence[tuple[Image, int]], mask: Mask | None
) -> tuple[list[float], list[float]]:
    """Milliseconds of each pair; the first, which warms up, is left out."""
    new: list[float] = []
    old: list[float] = []
    for number in range(_PAIRS + 1):
        image, seed = images[number % len(images)]
        order = [(new, candidate), (old, active)]
        for spent, side in order if number % 2 else reversed(order):
            x = preprocess(image, side.bundle.manifest.preprocess)[None]
            began = time.perf_counter()
            side.engine.run(x, [seed], side.profile, ignore=[mask])
            spent.append(1000 * (time.perf_counter() - began))
    return new[1:], old[1:]
