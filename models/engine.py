"""The engine: preprocessed images in, anomaly maps and reconstructions out.

`Engine` is the narrow face the service and the evaluator see. `BundleEngine` runs a bundle's profiles
on any denoiser: those of `models.engine_onnx` and `models.engine_openvino` serve (no torch), those of
`models.engine_torch` train.
"""

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from models.bundle import FEATURES_FILE, Bundle, Manifest
from models.drive import See, check, watched
from models.engine_onnx import OnnxDenoiser as OnnxDenoiser  # also reached through here
from models.engine_onnx import OnnxDetector as OnnxDetector
from models.engine_onnx import OnnxFeatures as OnnxFeatures
from models.evidence import Look
from models.masks import Mask, join
from models.parts import LabelledNet, of_part
from models.preprocess import shrink
from models.process import DiffusionProcess, noise_estimate
from models.reconstruct import reconstruct, reconstruction
from models.samplers import column
from models.scoring import RawMap as RawMap
from models.scoring import compare_with_estimates, score_image
from models.slot_tasks import Task
from models.slot_tasks import advance as advance_tasks
from models.slots import Slot, Wanted
from models.tiles import Compare, tiled, tiled_compare

Float = NDArray[np.float32]
Runtime = Literal["onnx", "openvino", "torch"]
Detect = Callable[[Float], Look]
"""The detector: images `[B, C, H, W]` in [-1, 1] -> what it says of them."""
MAX_ROWS: dict[Literal["cpu", "gpu"], int] = {"cpu": 16, "gpu": 64}
"""Images in one network call while slots are at different steps: a CPU gains nothing by more."""


class EngineError(RuntimeError):
    """The engine cannot run where it was asked to; the message says what to do."""


class SlotTask(Protocol):
    """An image on its way through the engine, between two network calls; to be dropped at any time."""

    @property
    def outcome(self) -> RawMap | Exception | None:
        """What the engine says of the image, or why it cannot; None while it is under way."""
        ...

    @property
    def wanted(self) -> Wanted:
        """What it still asks of the network, as far as can be foreseen; nothing once it has an outcome."""
        ...


class Engine(Protocol):
    """Runs a profile on images; what is said of one depends on that image and its seed alone."""

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
        ignore: Sequence[Mask | None] | None = None,
    ) -> list[RawMap]:
        """`images [B, C, H, W]` in [-1, 1] -> one RawMap each; KeyError for an unknown profile.

        `ignore` says for each image where it is not inspected; MaskError if nothing is left. Raises
        Cancelled when `should_stop` answers true between two network calls.
        """
        ...


class Slots(Protocol):
    """What an Engine also has when it can leave off between two network calls, for continuous batching."""

    def foresee(self, profile: str) -> Wanted:
        """What an image of a profile will ask of the network; KeyError as above."""
        ...

    def begin(
        self, image: Float, seed: int, profile: str, ignore: Mask | None = None, see: See | None = None
    ) -> SlotTask:
        """`image [C, H, W]` in [-1, 1] -> a task that nothing has been done for; KeyError as above.

        `see` is told what the network is asked about the image, as the network sees it, and what it answers.
        """
        ...

    def advance(self, tasks: Sequence[SlotTask], should_stop: Callable[[], bool] | None = None) -> None:
        """One network call for all of these that have no outcome yet; they may be at different steps.

        Where rows are short, tasks in front go first. What fails for one task alone becomes its outcome.
        Raises Cancelled when `should_stop` answers true.
        """
        ...


class NoisePredictor:
    """A network whose output still has to be scaled (`models.process.noise_estimate`) as a denoiser."""

    def __init__(self, net: LabelledNet, process: DiffusionProcess, clean_scale: float) -> None:
        self._net, self._process, self._scale = net, process, clean_scale

    def __call__(self, x: Float, t: Float, *labels: NDArray[np.int64]) -> Float:
        output = self._net(x, t, *labels)
        return np.asarray(noise_estimate(output, column(self._process.abar(t)), self._scale))


def as_denoiser(net: LabelledNet, process: DiffusionProcess, clean_scale: float) -> LabelledNet:
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
        net = tiled(net, shape.tile_px, shape.overlap_px)
        self._net = as_denoiser(net, self._process, shape.clean_scale)
        self._max_rows = MAX_ROWS[device]
        self._detector = detector
        self._features = features and tiled_compare(features, shape.tile_px, shape.overlap_px)
        self._positions = {name: bundle.positions(name) for name in bundle.manifest.profiles}
        self._kinds = {name: bundle.kinds(name) for name in bundle.manifest.profiles}
        self._ignore = bundle.ignore()

    def run(
        self,
        images: Float,
        seeds: Sequence[int],
        profile: str,
        should_stop: Callable[[], bool] | None = None,
        ignore: Sequence[Mask | None] | None = None,
    ) -> list[RawMap]:
        spec, net = self.manifest.profiles[profile], of_part(self._net, self.manifest.label(profile))
        small = shrink(images, self.manifest.network.reduce)
        estimates = reconstruct(net, self._process, spec, small, seeds, should_stop)
        return self._conclude(images, small, estimates, profile, ignore or [None] * len(images))

    def foresee(self, profile: str) -> Wanted:
        spec = self.manifest.profiles[profile]
        return Wanted(min(spec.at_once, self._max_rows), spec.network_calls)

    def begin(
        self, image: Float, seed: int, profile: str, ignore: Mask | None = None, see: See | None = None
    ) -> SlotTask:
        spec, label = self.manifest.profiles[profile], self.manifest.label(profile)
        small = shrink(image, self.manifest.network.reduce)
        steps = reconstruction(self._process, spec, small[None], [seed])
        slot = Slot(steps if see is None else watched(steps, see), label)
        return Task[RawMap](image, small, profile, ignore, slot, self.foresee(profile))

    def advance(self, tasks: Sequence[SlotTask], should_stop: Callable[[], bool] | None = None) -> None:
        check(should_stop, "before a network call")
        ours = [task for task in tasks if isinstance(task, Task)]
        advance_tasks(self._net, ours, self._max_rows, self._conclude)

    def _conclude(
        self, images: Float, small: Float, estimates: Float, profile: str, ignore: Sequence[Mask | None]
    ) -> list[RawMap]:
        """Healthy estimates `[B, K, C, H, W]` of images of one profile -> a RawMap each."""
        spec = self.manifest.profiles[profile]
        residuals, healthy = compare_with_estimates(spec, small, estimates, self._features)
        looks = None if self._detector is None else self._detector(images)
        known = self.manifest.calibration[profile], self._positions[profile], self._kinds[profile]
        masks = [join(self._ignore, mask) for mask in ignore]
        return [
            score_image(
                levels,
                healthy[row],
                None if looks is None else looks.row(row),
                spec,
                *known,
                ignore=masks[row],
            )
            for row, levels in enumerate(residuals)
        ]


def open_engine(
    bundle: Bundle, runtime: Runtime = "onnx", device: Literal["cpu", "gpu"] = "cpu", threads: int = 0
) -> BundleEngine:
    """An engine for a verified bundle; torch and OpenVINO are imported only when `runtime` asks for them.

    Under `openvino` the detector and the features stay with ONNX Runtime, in float32: they cost little, and
    their distances would lose more. Raises EngineError when the GPU is asked for in vain: ONNX Runtime alone
    would fall back to the CPU in silence, at a hundredth of the speed. ParityError where OpenVINO differs.
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
    if device == "gpu" and runtime == "openvino":
        raise EngineError("OpenVINO runs on the CPU here; use --device cpu, or --runtime onnx")
    if device == "gpu" and "CUDAExecutionProvider" not in ort.get_available_providers():
        raise EngineError("this ONNX Runtime has no CUDA; use --device cpu, or install onnxruntime-gpu")
    providers = ["CUDAExecutionProvider"] if device == "gpu" else ["CPUExecutionProvider"]
    net: LabelledNet = OnnxDenoiser(bundle.file("model.onnx"), threads, providers)
    if runtime == "openvino":
        net = _under_openvino(bundle, net, threads)
    detector = features = None
    if bundle.manifest.detector is not None:
        detector = OnnxDetector(bundle.file("detector.onnx"), threads, providers)
    if has_features:
        features = OnnxFeatures(bundle.file(FEATURES_FILE), threads, providers)
    return BundleEngine(bundle, net, device, detector, features)


def _under_openvino(bundle: Bundle, reference: LabelledNet, threads: int) -> LabelledNet:
    """The network under OpenVINO, found equal to the reference; EngineError where OpenVINO is missing."""
    try:
        from models.engine_openvino import OpenVinoDenoiser
    except ModuleNotFoundError:
        raise EngineError("OpenVINO is not installed: pip install -c constraints.txt '.[openvino]'") from None
    spec = bundle.manifest.network
    height, width = (min(side_px, spec.tile_px or side_px) for side_px in bundle.manifest.map_size)
    shape = spec.channels, height, width
    net = OpenVinoDenoiser(bundle.file("model.onnx"), threads, shape=shape)
    net.check(reference, shape, spec.classes)
    return net
