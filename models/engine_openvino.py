"""The exported network under OpenVINO: without torch, and in bfloat16 where the CPU multiplies that.

ONNX Runtime computes float32 on every CPU. OpenVINO uses the bfloat16 units (`avx512_bf16`, `amx_bf16`);
on a CPU without them it computes float32, too, and there is no reason to choose it.
"""

from pathlib import Path
from typing import Literal

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from models.parts import LabelledNet

Float = NDArray[np.float32]
Precision = Literal["bf16", "f32"]
TOLERANCE: dict[Precision, float] = {"bf16": 0.1, "f32": 1e-3}
"""Largest difference of a network output (unit variance) from ONNX Runtime's, by precision."""


class ParityError(RuntimeError):
    """The network does not stand this precision here; the message says what to use."""


def native_precision() -> Precision:
    """The narrowest floating-point numbers that this CPU multiplies natively."""
    return "bf16" if "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"


class OpenVinoDenoiser:
    """The exported network under OpenVINO: `x [B, C, H, W]`, `t [B]`, perhaps labels `[B]` -> eps.

    Not to be called by two threads at once.
    """

    def __init__(self, model: Path, threads: int = 0, precision: Precision | None = None) -> None:
        """`threads` 0 is OpenVINO's choice, and no `precision` the native one."""
        self.precision: Precision = precision or native_precision()
        hints = {
            "PERFORMANCE_HINT": "LATENCY",  # one call at a time has all threads
            "INFERENCE_PRECISION_HINT": self.precision,
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,  # the box also runs the service's other work
        }
        self._request = ov.Core().compile_model(model, "CPU", hints).create_infer_request()

    def __call__(self, x: Float, t: Float, label: NDArray[np.int64] | None = None) -> Float:
        inputs = {"x": x, "t": t} if label is None else {"x": x, "t": t, "label": label}
        return np.array(self._request.infer(inputs, share_inputs=True)["eps"], dtype=np.float32)

    def check(self, reference: LabelledNet, shape: tuple[int, int, int], classes: int = 0) -> float:
        """Largest difference from the reference on noise of `shape` (channels, height, width), at a low and a
        high timestep and for every class; ParityError beyond TOLERANCE.
        """
        t = np.repeat(np.array([1, 200], dtype=np.float32), max(classes, 1))
        labels = (np.tile(np.arange(classes, dtype=np.int64), 2),) if classes else ()
        x = np.random.default_rng(0).standard_normal((len(t), *shape), dtype=np.float32)
        worst = float(np.abs(self(x, t, *labels) - reference(x, t, *labels)).max())
        if not worst <= TOLERANCE[self.precision]:
            raise ParityError(
                f"OpenVINO in {self.precision} and ONNX Runtime differ by {worst:.2e}; use --runtime onnx"
            )
        return worst
