"""The engine: preprocessed images in, anomaly maps and reconstructions out.

`Engine` is the narrow face the service and the evaluator see. `BundleEngine` runs a bundle's profiles
on any denoiser; `OnnxDenoiser` is the one that serves (no torch), `models.engine_torch` the other.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from models.anomaly import anomaly_map, image_score, lift_unfamiliar, residual, smoothed_residual
from models.bundle import Bundle, ChainProfile, Manifest, Profile
from models.process import DiffusionProcess
from models.samplers import Denoiser, reconstruct_chain, reconstruct_one_step

Float = NDArray[np.float32]
Runtime = Literal["onnx", "torch"]


class EngineError(RuntimeError):
    """The engine cannot run where it was asked to; the message says what to do."""


@dataclass(frozen=True)
class RawMap:
    """What the engine says of one image."""

    map: Float  # [H, W], about 1 where nothing is wrong
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
) -> tuple[Float, Float]:
    """Run a profile: `images [B, C, H, W]` -> residuals `[B, K, H, W]`, reconstruction `[B, C, H, W]`."""
    if isinstance(profile, ChainProfile):
        healthy = reconstruct_chain(
            net,
            process,
            images,
            seeds,
            t_noise=profile.t_noise,
            t_start=profile.t_start,
            n_steps=profile.n_steps,
            sampler=profile.sampler,
            should_stop=should_stop,
        )
        return residual(images, healthy)[:, None], healthy
    estimates = reconstruct_one_step(
        net,
        process,
        images,
        seeds,
        timesteps=profile.timesteps,
        draws=profile.draws,
        should_stop=should_stop,
    )
    return residual(images[:, None], estimates), estimates.mean(axis=1)


class BundleEngine:
    """A bundle's profiles on a denoiser."""

    def __init__(self, bundle: Bundle, net: Denoiser, device: Literal["cpu", "gpu"] = "cpu") -> None:
        self.manifest = bundle.manifest
        self.model_hash = bundle.hash
        self.device = device
        self._net = net
        self._process = bundle.manifest.diffusion

    def run(
        self,
        images: Float,
        seeds: Sequence[int],
        profile: str,
        should_stop: Callable[[], bool] | None = None,
    ) -> list[RawMap]:
        spec, calibration = self.manifest.profiles[profile], self.manifest.calibration[profile]
        residuals, healthy = residual_levels(self._net, self._process, spec, images, seeds, should_stop)
        scales = np.asarray(calibration.residual_scales, dtype=np.float32)
        results = []
        for levels, reconstruction in zip(residuals, healthy, strict=True):
            smoothed = smoothed_residual(levels, scales, spec.map.sigma_px)
            amap = anomaly_map(smoothed, image_median=spec.map.image_median)
            amap, score = lift_unfamiliar(
                amap,
                image_score(amap, spec.map.top_fraction),
                float(np.median(smoothed)),
                calibration.medians,
                calibration.score,
            )
            results.append(RawMap(amap, reconstruction, score))
        return results


class OnnxDenoiser:
    """The exported network under ONNX Runtime: `x [B, C, H, W]`, `t [B]` -> eps."""

    def __init__(self, model: Path, threads: int = 0, providers: Sequence[str] = ("CPUExecutionProvider",)):
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Waiting threads sleep: the box also runs the service's other work, and often a training.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(model, options, providers=list(providers))

    def __call__(self, x: Float, t: Float) -> Float:
        (eps,) = self._session.run(["eps"], {"x": x, "t": t})
        return np.asarray(eps, dtype=np.float32)


def open_engine(
    bundle: Bundle, runtime: Runtime = "onnx", device: Literal["cpu", "gpu"] = "cpu", threads: int = 0
) -> BundleEngine:
    """An engine for a verified bundle; torch is imported only when `runtime` asks for it.

    Raises EngineError when the GPU is asked for in vain: ONNX Runtime alone would fall back to the CPU
    in silence, at a hundredth of the speed.
    """
    if runtime == "torch":
        import torch

        from models.engine_torch import TorchDenoiser

        if device == "gpu" and not torch.cuda.is_available():
            raise EngineError("torch sees no CUDA device; use --device cpu, or check the driver")
        if threads:
            torch.set_num_threads(threads)
        return BundleEngine(bundle, TorchDenoiser.from_bundle(bundle, device), device)
    if device == "gpu" and "CUDAExecutionProvider" not in ort.get_available_providers():
        raise EngineError("this ONNX Runtime has no CUDA; use --device cpu, or install onnxruntime-gpu")
    providers = ["CUDAExecutionProvider"] if device == "gpu" else ["CPUExecutionProvider"]
    return BundleEngine(bundle, OnnxDenoiser(bundle.file("model.onnx"), threads, providers), device)
