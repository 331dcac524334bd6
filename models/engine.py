"""The engine: preprocessed images in, anomaly maps and reconstructions out.

`Engine` is the narrow face the service and the evaluator see. `BundleEngine` runs a bundle's profiles
on any denoiser: those of `models.engine_onnx` serve (no torch), those of `models.engine_torch` train.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from models.anomaly import anomaly_map, image_score, lift_unfamiliar, smoothed_residual
from models.bundle import FEATURES_FILE, Bundle, Manifest, ProfileCalibration
from models.engine_onnx import OnnxDenoiser as OnnxDenoiser  # also reached through here
from models.engine_onnx import OnnxDetector as OnnxDetector
from models.engine_onnx import OnnxFeatures as OnnxFeatures
from models.evidence import EvidenceName, Look, detector_evidence, deviations, log_residual, weigh
from models.kinds import Kinds
from models.parts import LabelledNet, of_part
from models.preprocess import shrink
from models.process import DiffusionProcess, noise_estimate
from models.profiles import Profile
from models.reconstruct import reconstruct
from models.residuals import RESIDUALS
from models.samplers import Denoiser, column
from models.tiles import Compare, tiled, tiled_compare

Float = NDArray[np.float32]
Runtime = Literal["onnx", "torch"]
Detect = Callable[[Float], Look]
"""The detector: images `[B, C, H, W]` in [-1, 1] -> what it says of them."""


class EngineError(RuntimeError):
    """The engine cannot run where it was asked to; the message says what to do."""


@dataclass(frozen=True)
class RawMap:
    """What the engine says of one image."""

    map: Float  # [H, W]; the highest pixels of a usual image are about 1
    reconstruction: Float  # [C, H, W] in [-1, 1]
    score: float  # mean of the map's highest pixels, not calibrated


class Engine(Protocol):
    """Runs one profile on a batch; row i of the answer depends on image i and seed i alone."""

    @property
    def manifest(self) -> Manifest: ...

    @property
    def model_hash(self) -> str: ...

    @property
    def device(self) -> Literal["cpu", "gpu"]: ...

    def run(
        self,
        images: Float,
        seeds: Sequence[int],
        profile: str,
        should_stop: Callable[[], bool] | None = None,
    ) -> list[RawMap]:
        """`images [B, C, H, W]` in [-1, 1] -> one RawMap each; KeyError for an unknown profile."""
        ...


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
    reconstruction = np.asarray(estimates.mean(axis=1))
    levels = RESIDUALS[profile.map.residual](images[:, None], estimates)
    if profile.map.features != "none":
        if features is None:
            raise ValueError(f"the profile compares features of the {profile.map.features}: none are here")
        distance = features(profile.map.features, images, reconstruction)
        levels = np.concatenate([levels, distance[:, None]], axis=1)
    return levels, reconstruction


class NoisePredictor:
    """A network whose output still has to be scaled (`models.process.noise_estimate`) as a denoiser."""

    def __init__(self, net: Denoiser, process: DiffusionProcess, clean_scale: float) -> None:
        self._net, self._process, self._scale = net, process, clean_scale

    def __call__(self, x: Float, t: Float) -> Float:
        output = self._net(x, t)
        return np.asarray(noise_estimate(output, column(self._process.abar(t)), self._scale))


def as_denoiser(net: Denoiser, process: DiffusionProcess, clean_scale: float) -> Denoiser:
    """What samplers need of a network: its noise prediction."""
    return net if clean_scale == 0 else NoisePredictor(net, process, clean_scale)


class BundleEngine:
    """A bundle's profiles on a denoiser, its detector and its comparison of features where it has them."""

    def __init__(
        self,
        bundle: Bundle,
        net: LabelledNet,
        device: Literal["cpu", "gpu"] = "cpu",
        detector: Detect | None = None,
        features: Compare | None = None,
    ) -> None:
        self.manifest = bundle.manifest
        self.model_hash = bundle.hash
        self.device = device
        self._process = bundle.manifest.diffusion
        shape = bundle.manifest.network
        self._nets = {
            label: as_denoiser(
                tiled(of_part(net, label), shape.tile_px, shape.overlap_px), self._process, shape.clean_scale
            )
            for label in {bundle.manifest.label(profile) for profile in bundle.manifest.profiles}
        }
        self._detector = detector
        self._features = features and tiled_compare(features, shape.tile_px, shape.overlap_px)
        self._positions = {name: bundle.positions(name) for name in bundle.manifest.profiles}
        self._kinds = {name: bundle.kinds(name) for name in bundle.manifest.profiles}

    def run(
        self,
        images: Float,
        seeds: Sequence[int],
        profile: str,
        should_stop: Callable[[], bool] | None = None,
    ) -> list[RawMap]:
        spec, net = self.manifest.profiles[profile], self._nets[self.manifest.label(profile)]
        small = shrink(images, self.manifest.network.reduce)
        residuals, healthy = residual_levels(
            net, self._process, spec, small, seeds, should_stop, self._features
        )
        looks = None if self._detector is None else self._detector(images)
        known = self.manifest.calibration[profile], self._positions[profile], self._kinds[profile]
        return [
            score_image(levels, healthy[row], None if looks is None else looks.row(row), spec, *known)
            for row, levels in enumerate(residuals)
        ]


def score_image(
    levels: Float,
    reconstruction: Float,
    look: tuple[Float, Float | None] | None,
    spec: Profile,
    calibration: ProfileCalibration,
    positions: Mapping[EvidenceName, Float],
    kinds: Kinds | None = None,
) -> RawMap:
    """Residuals `[K, H, W]` of one image, the detector's evidence `[3, h, w]` and features `[D]` -> its map
    and score."""
    scales = np.asarray(calibration.residual_scales, dtype=np.float32)
    smoothed = smoothed_residual(levels, scales, spec.map.sigma_px, spec.map.weights(spec.levels))
    if look is None:
        amap = anomaly_map(smoothed, image_median=spec.map.image_median)
        score = image_score(amap, spec.map.top_fraction)
    else:
        outputs, features = look
        found = deviations(gather(smoothed, outputs, spec.map.sigma_px), calibration.evidence, positions)
        usual = {} if kinds is None or features is None else kinds.usual(features)
        amap, score = weigh(found, calibration.evidence, usual, spec.map.top_fraction)
    amap, score = lift_unfamiliar(
        amap,
        score,
        float(np.median(smoothed)),
        calibration.medians,
        calibration.score,
    )
    return RawMap(amap, reconstruction, score)


def gather(smoothed: Float, look: Float, sigma_px: float) -> dict[EvidenceName, Float]:
    """All evidence on one image, `[H, W]` each, from its smoothed residual and the detector's outputs."""
    found = detector_evidence(look, smoothed.shape, sigma_px)
    return {"residual": log_residual(smoothed), **found}


def open_engine(
    bundle: Bundle, runtime: Runtime = "onnx", device: Literal["cpu", "gpu"] = "cpu", threads: int = 0
) -> BundleEngine:
    """An engine for a verified bundle; torch is imported only when `runtime` asks for it.

    Raises EngineError when the GPU is asked for in vain: ONNX Runtime alone would fall back to the CPU
    in silence, at a hundredth of the speed.
    """
    has_features = FEATURES_FILE in bundle.manifest.files
    if runtime == "torch":
        import torch

        from models.engine_torch import TorchDenoiser, TorchDetector, TorchFeatures

        if device == "gpu" and not torch.cuda.is_available():
            raise EngineError("torch sees no CUDA device; use --device cpu, or check the driver")
        if threads:
            torch.set_num_threads(threads)
        looks = None if bundle.manifest.detector is None else TorchDetector.from_bundle(bundle, device)
        compares = TorchFeatures.from_bundle(bundle, device) if has_features else None
        return BundleEngine(bundle, TorchDenoiser.from_bundle(bundle, device), device, looks, compares)
    if device == "gpu" and "CUDAExecutionProvider" not in ort.get_available_providers():
        raise EngineError("this ONNX Runtime has no CUDA; use --device cpu, or install onnxruntime-gpu")
    providers = ["CUDAExecutionProvider"] if device == "gpu" else ["CPUExecutionProvider"]
    net = OnnxDenoiser(bundle.file("model.onnx"), threads, providers)
    detector = features = None
    if bundle.manifest.detector is not None:
        detector = OnnxDetector(bundle.file("detector.onnx"), threads, providers)
    if has_features:
        features = OnnxFeatures(bundle.file(FEATURES_FILE), threads, providers)
    return BundleEngine(bundle, net, device, detector, features)
