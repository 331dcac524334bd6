"""The bundle: an exported model as an immutable directory, the only contract between trainer and service.

    manifest.json              everything about the model, and the sha256 of every other file
    model.onnx                 the network, dynamic batch and size
    model.safetensors          the same weights for torch
    calibration.safetensors    arrays per profile: `<profile>/scores`, the sorted raw training scores,
                               `<profile>/position/<evidence>`, its usual value per place, and
                               `<profile>/kind/...`, the training images by kind (`models.kinds`);
                               `ignore`, the mask of what was not calibrated and is not inspected
    detector.onnx, detector.safetensors    the defect detector, in bundles that have one
    features.onnx              distance of an image from its reconstruction by features, where a profile asks
                               for it; made of the networks above, so it has no weights of its own
    audit.csv                  training images ranked by how much they look like contaminants
    thumbnails.safetensors     the first of them as small WebP images, by their rank; older bundles have none
    report.html                the training run for a person
    manifest.sig               if somebody signed it: of `manifest.json`; not looked at here

The bundle's own identity is the sha256 of `manifest.json`.
"""

import hashlib
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.numpy import load_file

from models.anomaly import MedianCalibration, ScoreCalibration
from models.evidence import EvidenceCalibration, EvidenceName
from models.kinds import Kinds, read_kinds
from models.masks import Mask
from models.masks import check as check_mask
from models.parts import check_parts
from models.preprocess import Preprocess
from models.process import DiffusionProcess
from models.profiles import ChainProfile as ChainProfile  # also reached through here
from models.profiles import MapRecipe as MapRecipe
from models.profiles import OneStepProfile as OneStepProfile
from models.profiles import PartName
from models.profiles import Profile as Profile

SCHEMA_VERSION = 1
FILES = ("model.onnx", "model.safetensors", "calibration.safetensors", "audit.csv", "report.html")
DETECTOR_FILES = ("detector.onnx", "detector.safetensors")
FEATURES_FILE = "features.onnx"
THUMBNAILS_FILE = "thumbnails.safetensors"
SIGNATURE_FILE = "manifest.sig"
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class BundleError(ValueError):
    """The directory is not a bundle that may be loaded; the message says why."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Thresholds(_Model):
    """Suggested limits on the calibrated score: PASS < review <= REVIEW < reject <= REJECT."""

    review: float
    reject: float

    @model_validator(mode="after")
    def _ordered(self) -> "Thresholds":
        if not self.review <= self.reject:
            raise ValueError(f"review threshold {self.review} is above reject threshold {self.reject}")
        return self


class ProfileCalibration(_Model):
    """What the training images taught about one profile's residuals and scores."""

    residual_scales: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        description="typical residual per noise level of the profile, and that of features it compares"
    )
    score_location: float = Field(description="median of log raw scores")
    score_scale: float = Field(gt=0, description="robust sigma of log raw scores")
    median_location: float = Field(description="median of the log medians of smoothed residuals")
    median_scale: float = Field(gt=0, description="robust sigma of the log medians of smoothed residuals")
    suggested: Thresholds
    map_max: float = Field(gt=0, description="top of the fixed colour scale of the map")
    images: int = Field(ge=1, description="training images the profile was calibrated on")
    evidence: dict[EvidenceName, EvidenceCalibration] = Field(
        default={}, description="how residual and detector are weighed; empty: the residual alone"
    )

    @model_validator(mode="after")
    def _weighed(self) -> "ProfileCalibration":
        if self.evidence and not math.isclose(sum(e.weight for e in self.evidence.values()), 1, abs_tol=1e-6):
            raise ValueError("the weights of the evidence must sum to 1")
        images = [e.image.weight for e in self.evidence.values() if e.image is not None]
        if images and not (len(images) == len(self.evidence) and math.isclose(sum(images), 1, abs_tol=1e-6)):
            raise ValueError("all evidence or none has a weight in an image's score, and these sum to 1")
        return self

    @property
    def medians(self) -> MedianCalibration:
        return MedianCalibration(self.median_location, self.median_scale)

    @property
    def score(self) -> ScoreCalibration:
        return ScoreCalibration(self.score_location, self.score_scale)


class Process(_Model):
    """The noise schedule (see `models.process`)."""

    steps: int = Field(default=1000, ge=1, le=100_000, strict=True)
    beta_start: float = 1e-4
    beta_end: float = 0.02

    @model_validator(mode="after")
    def _usable(self) -> "Process":
        self.build()
        return self

    def build(self) -> DiffusionProcess:
        return DiffusionProcess(self.steps, self.beta_start, self.beta_end)


class Network(_Model):
    """The shape of the U-Net; the fields of `models.unet.UNetConfig`, which needs torch."""

    channels: Literal[1, 3]
    widths: tuple[Annotated[int, Field(ge=4, le=4096)], ...] = Field(min_length=1, max_length=8)
    blocks: int = Field(ge=1, le=16)
    patch: int = Field(ge=1, le=16)
    groups: int = Field(ge=1)
    attention: bool
    clean_scale: float = Field(default=0.0, ge=0, description="see `models.process.noise_estimate`")
    classes: int = Field(default=0, ge=0, exclude_if=lambda n: n == 0, description="see `Manifest.parts`")
    reduce: int = Field(default=1, ge=1, le=16, description="images enter this many times smaller")
    tile_px: int | None = Field(default=None, ge=16, description="seen in tiles of this side, once reduced")
    overlap_px: int = Field(default=0, ge=0, description="of neighbouring tiles")

    def shape(self) -> dict[str, Any]:
        """The fields of `models.unet.UNetConfig`, without how images are brought to the network."""
        return self.model_dump(exclude={"reduce", "tile_px", "overlap_px"})

    @property
    def stride(self) -> int:
        """Image height and width are multiples of this many pixels."""
        return int(self.reduce * self.patch * 2 ** (len(self.widths) - 1))


class DetectorInfo(_Model):
    """The shape of the defect detector (`models.detector`, which needs torch)."""

    backbone: Literal["pretrained", "own"] = Field(description="where the features come from")
    width: int = Field(ge=8)
    groups: int = Field(ge=1)
    places: tuple[Annotated[int, Field(ge=1, le=4096)], Annotated[int, Field(ge=1, le=4096)]] | None = Field(
        default=None,
        exclude_if=lambda places: places is None,
        description="rows and columns of `models.places`",
    )
    place_px: int = Field(
        default=8, ge=8, le=512, exclude_if=lambda px: px == 8, description="pixels a side of each"
    )


class Retrained(_Model):
    """Where a training that went on from an earlier bundle came from, and what it was calibrated on."""

    base: Sha256 = Field(description="the bundle whose recipe, and perhaps weights, it began with")
    start: Literal["warm", "fresh"] = Field(description="warm: from the base's weights")
    recipe: str = Field(description="of the service whose inspections it learned from")
    training_set: Sha256 = Field(description="snapshot of the export")
    held_out_by: Literal["lot", "day"] | None = Field(
        default=None, description="None: calibrated on the images it was trained on"
    )
    held_out: tuple[str, ...] = Field(default=(), description="lots or days calibrated on, not trained on")
    held_out_images: int = Field(default=0, ge=0)
    limits_carried: tuple[str, ...] = Field(
        default=(),
        exclude_if=lambda profiles: not profiles,
        description="profiles whose suggested limits stop as many of the images held out as the base's did",
    )


class Extended(_Model):
    """Which bundle learned further parts here, and how the earlier ones were kept."""

    base: Sha256
    old_parts: tuple[str, ...] = Field(description="that the base knew; they keep their labels")
    strategy: Literal["finetune", "replay", "projection"]
    old_images_trained_on: int = Field(ge=0)


class TrainingData(_Model):
    snapshot: Sha256 = Field(description="sha256 over the sorted content hashes of the training images")
    images: int = Field(ge=1)
    left_out: int = Field(
        default=0,
        ge=0,
        exclude_if=lambda count: count == 0,
        description="further images, which a person marked as defective",
    )
    trusted: int = Field(
        default=0,
        ge=0,
        exclude_if=lambda count: count == 0,
        description="of the images, marked as fine by a person",
    )
    estimated_contamination: float = Field(ge=0, le=1)
    contamination_interval: tuple[float, float] | None = Field(default=None, description="90 %, bootstrap")
    masked_share: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        exclude_if=lambda share: share == 0,
        description="of each image, not inspected",
    )
    retrained: Retrained | None = Field(default=None, exclude_if=lambda retrained: retrained is None)
    extended: Extended | None = Field(default=None, exclude_if=lambda extended: extended is None)


class Manifest(_Model):
    """`manifest.json`: all that a service must know to inspect with this model."""

    schema_version: Literal[1] = 1
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    version: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$")
    created_at: str
    files: dict[str, Sha256]
    recipe: dict[str, Any]
    network: Network
    detector: DetectorInfo | None = None
    preprocess: Preprocess
    process: Process
    parts: tuple[PartName, ...] = Field(
        default=(),
        exclude_if=lambda parts: not parts,
        description="kinds of parts that the network tells apart, in the order of their labels",
    )
    profiles: dict[str, Profile]
    default_profile: dict[Literal["cpu", "gpu"], str]
    calibration: dict[str, ProfileCalibration]
    metrics: dict[str, Any]
    training_data: TrainingData
    libraries: dict[str, str]

    @model_validator(mode="after")
    def _consistent(self) -> "Manifest":
        expected = expected_files(self.profiles, detector=self.detector is not None)
        if set(self.files) - {THUMBNAILS_FILE} != set(expected):
            raise ValueError(f"files must be exactly {sorted(expected)}")
        if set(self.calibration) != set(self.profiles):
            raise ValueError("every profile needs its calibration, and nothing else may have one")
        spec, stride = self.preprocess, self.network.stride
        if spec.channels != self.network.channels or spec.height % stride or spec.width % stride:
            raise ValueError(f"the input {spec} does not fit the network (stride {stride})")
        if self.detector is not None and self.detector.places is not None:
            rows, columns = (self.detector.place_px * count for count in self.detector.places)
            if (spec.height, spec.width) != (rows, columns):
                raise ValueError(f"the input {spec} does not fit the places of {rows} x {columns} px")
        for name, profile in self.profiles.items():
            levels = len(profile.map.weights(profile.levels))
            if len(self.calibration[name].residual_scales) != levels:
                raise ValueError(f"profile {name}: {levels} residual scales expected")
            if profile.map.features == "backbone" and self.detector is None:
                raise ValueError(f"profile {name}: features of a backbone need a detector")
            weighed = self.calibration[name].evidence
            if set(weighed) != (set(get_args(EvidenceName)) if self.detector else set()):
                raise ValueError(f"profile {name}: evidence {sorted(weighed)} does not fit the detector")
            if profile.largest_timestep > self.diffusion.steps:
                raise ValueError(f"profile {name} goes beyond the process's {self.diffusion.steps} steps")
        check_parts(self.parts, self.network.classes, self.profiles)
        for device in ("cpu", "gpu"):
            if self.default_profile.get(device) not in self.profiles:
                raise ValueError(f"default profile for {device} is missing or unknown")
        return self

    def label(self, profile: str) -> int | None:
        """What a profile tells the network about the kind of part; KeyError for an unknown profile."""
        part = self.profiles[profile].part
        return None if part is None else self.parts.index(part)

    @property
    def diffusion(self) -> DiffusionProcess:
        return self.process.build()

    @property
    def map_size(self) -> tuple[int, int]:
        """(height, width) of anomaly maps and reconstructions."""
        return self.preprocess.height // self.network.reduce, self.preprocess.width // self.network.reduce


def expected_files(profiles: Mapping[str, Profile], *, detector: bool) -> tuple[str, ...]:
    """The files beside the manifest in a bundle with these profiles, but for thumbnails."""
    compares = any(profile.map.features != "none" for profile in profiles.values())
    return (*FILES, *(DETECTOR_FILES if detector else ()), *((FEATURES_FILE,) if compares else ()))


class Bundle:
    """A verified bundle on disk. `hash` identifies it: the sha256 of its manifest."""

    def __init__(self, path: Path, manifest: Manifest, manifest_hash: str) -> None:
        self.path = path
        self.manifest = manifest
        self.hash = manifest_hash

    def file(self, name: str) -> Path:
        return self.path / name

    def training_scores(self, profile: str) -> NDArray[np.float64]:
        """Sorted raw scores of the training images under a profile, `[N]`."""
        return load_file(self.file("calibration.safetensors"))[f"{profile}/scores"].astype(np.float64)

    def positions(self, profile: str) -> dict[EvidenceName, NDArray[np.float32]]:
        """Usual evidence per place `[h, w]` of a profile, where the training images show one."""
        arrays = load_file(self.file("calibration.safetensors"))
        names = self.manifest.calibration[profile].evidence
        keys = {name: f"{profile}/position/{name}" for name in names}
        return {name: arrays[key].astype(np.float32) for name, key in keys.items() if key in arrays}

    def kinds(self, profile: str) -> Kinds | None:
        """What is usual for which kind of image under a profile, where that was found to matter."""
        prefix, arrays = f"{profile}/", load_file(self.file("calibration.safetensors"))
        own = {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
        return read_kinds(own, list(self.manifest.calibration[profile].evidence))

    def ignore(self) -> Mask | None:
        """Where parts are not inspected, `[H, W]`, in bundles that were calibrated with a mask."""
        found = load_file(self.file("calibration.safetensors")).get("ignore")
        return None if found is None else found.astype(np.bool_)


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_bundle(path: Path) -> Bundle:
    """Open a bundle and verify it before anything in it is used.

    Refused with BundleError: a missing or extra file, a link, a wrong hash, a manifest of another
    schema or with unknown fields, unreadable calibration. Nothing in a bundle is ever unpickled.
    """
    path = path.resolve()  # a link may be switched later; what is verified here is what gets loaded
    if not path.is_dir():
        raise BundleError(
            f"{path} is not a directory; a bundle is the folder that `inlier-trainer fit` wrote"
        )
    present = {entry.name for entry in path.iterdir()}
    expected = {"manifest.json", *FILES, *(DETECTOR_FILES if DETECTOR_FILES[0] in present else ())}
    expected |= {FEATURES_FILE, THUMBNAILS_FILE, SIGNATURE_FILE} & present
    if present != expected:
        missing, extra = sorted(expected - present), sorted(present - expected)
        raise BundleError(
            f"{path} is not a bundle: missing {missing or 'nothing'}, unexpected {extra or 'nothing'}"
        )
    for name in expected:
        entry = path / name
        if entry.is_symlink() or not entry.is_file():
            raise BundleError(f"{name} in {path} is not a plain file")
    text = (path / "manifest.json").read_bytes()
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        raise BundleError(f"{path}/manifest.json is not valid: {error}") from None
    if {"manifest.json", *manifest.files} != present - {SIGNATURE_FILE}:
        raise BundleError(f"{path}/manifest.json does not name the files that are there")
    for name, expected_hash in manifest.files.items():
        if sha256_file(path / name) != expected_hash:
            raise BundleError(f"{name} in {path} does not match its sha256 in the manifest")
    bundle = Bundle(path, manifest, hashlib.sha256(text).hexdigest())
    try:
        for profile in manifest.profiles:
            bundle.training_scores(profile)
            _check_positions(bundle.positions(profile))
            bundle.kinds(profile)
        if (mask := bundle.ignore()) is not None:
            check_mask(mask, manifest.map_size)
    except (SafetensorError, KeyError, ValueError) as error:
        raise BundleError(f"calibration.safetensors in {path} cannot be used: {error!r}") from None
    return bundle


def _check_positions(positions: dict[EvidenceName, NDArray[np.float32]]) -> None:
    for name, array in positions.items():
        if array.ndim != 2 or not array.size or not np.isfinite(array).all():
            raise ValueError(f"the usual {name} per place must be finite numbers [h, w]")


def write_bundle(target: Path, fill: Callable[[Path], Manifest]) -> Bundle:
    """Publish a bundle by atomic rename: `fill` writes the files into a folder and returns the manifest.

    The manifest's `files` are replaced by the hashes of what was written. An existing target is never
    touched: FileExistsError. If anything fails, nothing appears at `target`.
    """
    if target.exists():
        raise FileExistsError(f"{target} exists and a bundle is never changed; choose another place")
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        manifest = fill(work)
        hashes = {name: sha256_file(work / name) for name in manifest.files}
        manifest = Manifest.model_validate({**manifest.model_dump(), "files": hashes})
        (work / "manifest.json").write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
        load_bundle(work)
        for file in work.iterdir():
            file.chmod(0o644)
            _fsync(file)
        work.chmod(0o755)
        _fsync(work)
        work.rename(target)
        _fsync(target.parent)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    return load_bundle(target)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
