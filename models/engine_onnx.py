"""The exported networks under ONNX Runtime: what serves, without torch."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from models.evidence import Look
from models.profiles import FeatureSource

Float = NDArray[np.float32]


def _session(model: Path, threads: int, providers: Sequence[str]) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Waiting threads sleep: the box also runs the service's other work, and often a training.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(model, options, providers=list(providers))


class OnnxDenoiser:
    """The exported network under ONNX Runtime: `x [B, C, H, W]`, `t [B]`, perhaps labels `[B]` -> eps."""

    def __init__(self, model: Path, threads: int = 0, providers: Sequence[str] = ("CPUExecutionProvider",)):
        self._session = _session(model, threads, providers)

    def __call__(self, x: Float, t: Float, label: NDArray[np.int64] | None = None) -> Float:
        inputs = {"x": x, "t": t} if label is None else {"x": x, "t": t, "label": label}
        (eps,) = self._session.run(["eps"], inputs)
        return np.asarray(eps, dtype=np.float32)


class OnnxDetector:
    """The exported defect detector under ONNX Runtime: images `[B, C, H, W]` -> evidence and mean features.

    Bundles made before the features had a use export the evidence alone.
    """

    def __init__(self, model: Path, threads: int = 0, providers: Sequence[str] = ("CPUExecutionProvider",)):
        self._session = _session(model, threads, providers)
        self._outputs = [output.name for output in self._session.get_outputs()]

    def __call__(self, images: Float) -> Look:
        found = dict(zip(self._outputs, self._session.run(self._outputs, {"x": images}), strict=True))
        return Look(found["evidence"], found.get("features"))


class OnnxFeatures:
    """The exported comparison of features: images and reconstructions `[B, C, H, W]` -> `[B, H, W]`."""

    def __init__(self, model: Path, threads: int = 0, providers: Sequence[str] = ("CPUExecutionProvider",)):
        self._session = _session(model, threads, providers)
        self._options = ort.RunOptions()
        self._options.only_execute_path_to_fetches = True  # a file may hold two sources

    def __call__(self, source: FeatureSource, images: Float, reconstructions: Float) -> Float:
        inputs = {"x": images, "y": reconstructions}
        (distance,) = self._session.run([source], inputs, self._options)
        return np.asarray(distance, dtype=np.float32)
