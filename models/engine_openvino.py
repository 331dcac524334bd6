"""The exported network under OpenVINO: without torch, and in bfloat16 where the CPU multiplies that.

ONNX Runtime computes float32 on every CPU. OpenVINO uses the bfloat16 units (`avx512_bf16`, `amx_bf16`);
on a CPU without them it computes float32, too, and there is no reason to choose it.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from models.engine_openvino_norm import fold_normalisations
from models.parts import LabelledNet

Float = NDArray[np.float32]
Precision = Literal["bf16", "f32"]
Shape = tuple[int, int, int]
TOLERANCE: dict[Precision, float] = {"bf16": 0.1, "f32": 1e-3}
"""Largest difference of a network output (unit variance) from ONNX Runtime's, by precision."""
SIZES = (8, 4, 2, 1)
"""Rows of the calls that images of the known shape are divided into; more at once gain nothing on a CPU."""


class ParityError(RuntimeError):
    """The network does not stand this precision here; the message says what to use."""


def native_precision() -> Precision:
    """The narrowest floating-point numbers that this CPU multiplies natively."""
    return "bf16" if "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"


class OpenVinoDenoiser:
    """The exported network under OpenVINO: `x [B, C, H, W]`, `t [B]`, perhaps labels `[B]` -> eps.

    For images of the `shape` that it is told at first it is compiled for each of SIZES: where all sides are
    known OpenVINO fuses what lies between convolutions. Images of other shapes go through one that takes
    any. Not to be called by two threads at once.
    """

    def __init__(
        self, model: Path, threads: int = 0, precision: Precision | None = None, shape: Shape | None = None
    ) -> None:
        """`threads` 0 is OpenVINO's choice, no `precision` the native one; `shape` is (channels, height,
        width)."""
        self.precision: Precision = precision or native_precision()
        self._hints = {
            "PERFORMANCE_HINT": "LATENCY",  # one call at a time has all threads
            "INFERENCE_PRECISION_HINT": self.precision,
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,  # the box also runs the service's other work
        }
        self._model, self._shape = model, shape
        self._any: Any = None  # a request, once an image of another shape has come
        self._fixed: dict[int, Any] = {} if shape is None else self._of_shape(shape)

    def __call__(self, x: Float, t: Float, label: NDArray[np.int64] | None = None) -> Float:
        inputs: dict[str, NDArray[Any]] = (
            {"x": x, "t": t} if label is None else {"x": x, "t": t, "label": label}
        )
        if x.shape[1:] != self._shape:
            if self._any is None:
                self._any = self._compiled(ov.Core().read_model(self._model))
            return _infer(self._any, inputs)
        parts, row = [], 0
        for size in SIZES:
            while len(x) - row >= size:
                part = {name: values[row : row + size] for name, values in inputs.items()}
                parts.append(_infer(self._fixed[size], part))
                row += size
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _of_shape(self, shape: Shape) -> dict[int, Any]:
        """By number of rows, a request for images of this shape."""
        network = ov.Core().read_model(self._model)
        fold_normalisations(network)

        def compiled(rows: int) -> Any:
            fixed = network.clone()
            free = {port.any_name: [rows] for port in fixed.inputs}
            fixed.reshape({**free, "x": [rows, *shape]})
            return self._compiled(fixed)

        with ThreadPoolExecutor(2) as pool:  # compiling runs on one core
            return dict(zip(SIZES, pool.map(compiled, SIZES), strict=True))

    def _compiled(self, network: ov.Model) -> Any:
        return ov.Core().compile_model(network, "CPU", self._hints).create_infer_request()

    def check(self, reference: LabelledNet, shape: Shape, classes: int = 0) -> float:
        """Largest difference from the reference on noise of `shape` (channels, height, width), at a low and a
        high timestep and for every class, in calls of every size; ParityError beyond TOLERANCE.
        """
        t = np.repeat(np.array([1, 200], dtype=np.float32), max(classes, 1))
        rows = sum(SIZES) + SIZES[0] * max(0, -(-(len(t) - sum(SIZES)) // SIZES[0]))
        t = np.resize(t, rows)
        labels = (np.resize(np.arange(classes, dtype=np.int64), rows),) if classes else ()
        x = np.random.default_rng(0).standard_normal((rows, *shape), dtype=np.float32)
        worst = float(np.abs(self(x, t, *labels) - reference(x, t, *labels)).max())
        if not worst <= TOLERANCE[self.precision]:
            raise ParityError(
                f"OpenVINO in {self.precision} and ONNX Runtime differ by {worst:.2e}; use --runtime onnx"
            )
        return worst


def _infer(request: Any, inputs: dict[str, Any]) -> Float:
    return np.array(request.infer(inputs, share_inputs=True)["eps"], dtype=np.float32)
