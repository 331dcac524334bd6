"""Write the network as ONNX and safetensors, proven equal on golden images before anything is published."""

import logging
import warnings
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import nn

from models.engine import OnnxDenoiser
from models.engine_torch import TorchDenoiser
from models.process import DiffusionProcess, q_sample
from models.samplers import column, draw_noise, generators
from models.unet import UNet
from trainer.errors import TrainerError

TOLERANCE = 1e-3
"""Largest difference of a noise prediction (unit variance) between torch and ONNX Runtime."""


class ExportError(TrainerError):
    """The exported network does not equal the trained one, so nothing was published."""


def write_weights(net: UNet, path: Path) -> None:
    save_file({k: v.detach().cpu().contiguous() for k, v in net.state_dict().items()}, path)


def write_onnx(net: nn.Module, path: Path, channels: int, stride: int) -> None:
    """Export with dynamic batch, height and width; inputs `x`, `t`, output `eps`, one self-contained file."""
    side = 4 * stride
    example = (torch.zeros(2, channels, side, side), torch.ones(2))
    batch, height, width = (torch.export.Dim(n) for n in ("batch", "height", "width"))
    # The exporter warns of its own deprecations, and logs that the unneeded torchvision is absent.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net.eval(),
            example,
            path,
            input_names=["x", "t"],
            output_names=["eps"],
            dynamic_shapes=({0: batch, 2: stride * height, 3: stride * width}, {0: batch}),
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def check_parity(
    net: UNet, onnx: Path, golden: NDArray[np.float32], process: DiffusionProcess, timesteps: list[float]
) -> float:
    """Largest |eps_torch - eps_onnx| on golden images `[N, C, H, W]` at each timestep, at two sizes and
    as a batch and one by one; ExportError beyond TOLERANCE."""
    reference, exported = TorchDenoiser(net), OnnxDenoiser(onnx)
    stride = net.config.stride
    worst = 0.0
    for images in (golden, golden[:1, :, : -stride or None, :]):
        if 0 in images.shape:
            continue
        images = np.ascontiguousarray(images)
        for t in timesteps:
            steps = np.full(len(images), t, dtype=np.float32)
            eps = draw_noise(generators(range(len(images))), images.shape[1:])
            x_t = q_sample(images, eps, column(process.abar(steps)))
            expected = reference(x_t, steps)
            singles = np.concatenate([exported(x_t[i : i + 1], steps[i : i + 1]) for i in range(len(images))])
            for got in (exported(x_t, steps), singles):
                worst = max(worst, float(np.abs(got - expected).max()))
    if not worst <= TOLERANCE:
        raise ExportError(
            f"ONNX and torch differ by {worst:.2e} (allowed {TOLERANCE:.0e}); nothing published"
        )
    return worst
