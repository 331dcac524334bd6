"""Write the network as ONNX and safetensors, proven equal on golden images before anything is published."""

import copy
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from models.backbone import FUSABLE
from models.bundle import FEATURES_FILE, Bundle
from models.detector import Detector
from models.engine_onnx import OnnxDenoiser, OnnxDetector, OnnxFeatures
from models.engine_torch import (
    TorchDenoiser,
    TorchDetector,
    TorchFeatures,
    load_detector,
    load_features,
    load_net,
)
from models.features import FeatureDistance
from models.parts import of_part
from models.preprocess import shrink
from models.process import DiffusionProcess, q_sample
from models.samplers import Denoiser, column, draw_noise, generators
from models.unet import UNet
from trainer.errors import TrainerError

TOLERANCE = 1e-3
"""Largest difference of a noise prediction (unit variance) between torch and ONNX Runtime."""
_TRACED = (192, 320)  # px; sides that no part image has, so that the comparison is one of other sides


class ExportError(TrainerError):
    """The exported network does not equal the trained one, so nothing was published."""


def write_weights(net: nn.Module, path: Path) -> None:
    save_file({k: v.detach().cpu().contiguous() for k, v in net.state_dict().items()}, path)


def write_onnx(net: nn.Module, path: Path, channels: int, stride: int, classes: int = 0) -> None:
    """The denoiser with dynamic batch, height and width; inputs `x`, `t`, output `eps`.

    With classes there is a third input, `label` int64 `[B]`.
    """
    x, t = torch.zeros(2, channels, 4 * stride, 4 * stride), torch.ones(2)
    batch = torch.export.Dim("batch")
    image, row = {0: batch, **_sides(stride)}, {0: batch}
    if classes:
        label = torch.zeros(2, dtype=torch.int64)
        _export(net, path, (x, t, label), ["x", "t", "label"], ["eps"], (image, row, row))
    else:
        _export(net, path, (x, t), ["x", "t"], ["eps"], (image, row))


def write_detector(detector: Detector, path: Path, channels: int) -> None:
    """The detector with dynamic batch, height and width; input `x`, outputs `evidence`, `features`.

    One that compares place by place takes images of its own size alone.

    It is traced at sides of its own, that are freed afterwards: nothing in it asks for them, and to carry
    them as symbols through so deep a network takes the exporter four times as long.
    """
    places, place_px = detector.config.places, detector.config.place_px
    sides = _TRACED if places is None else [place_px * count for count in places]
    example = (torch.zeros(2, channels, *sides),)
    shapes = ({0: torch.export.Dim("batch")},)
    _export(_fused(detector), path, example, ["x"], ["evidence", "features"], shapes)
    if places is None:
        _free_sides(path)


def _fused(detector: Detector) -> Detector:
    """The same function with every normalisation of the backbone in the convolution before it."""
    fused = copy.deepcopy(detector).eval()
    for module in fused.backbone.modules():
        for convolution, norm in FUSABLE:
            if hasattr(module, convolution):
                found = fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm))
                setattr(module, convolution, found)
                setattr(module, norm, nn.Identity())
    return fused


def _free_sides(path: Path) -> None:
    """Images of any height and width; what the exporter noted of the sizes within is dropped."""
    model = onnx.load(path)
    del model.graph.value_info[:]
    for value in (*model.graph.input, *model.graph.output):
        for axis, name in zip(value.type.tensor_type.shape.dim[2:], ("height", "width"), strict=False):
            axis.dim_param = name if value.name == "x" else f"{value.name}_{name}"
    onnx.save(model, path)


def write_features(distance: FeatureDistance, path: Path, channels: int) -> None:
    """The comparison of features with dynamic batch, height and width; inputs `x`, `y`, output per source."""
    side = 4 * distance.stride
    example = (torch.zeros(2, channels, side, side), torch.ones(2, channels, side, side))
    shape = {0: torch.export.Dim("batch"), **_sides(distance.stride)}
    _export(distance, path, example, ["x", "y"], [*distance.names], (shape, shape))


def _sides(stride: int) -> dict[int, Any]:
    height, width = (torch.export.Dim(name) for name in ("height", "width"))
    return {2: stride * height, 3: stride * width}


def _export(
    net: nn.Module, path: Path, example: tuple[Any, ...], inputs: list[str], outputs: list[str], shapes: Any
) -> None:
    """One self-contained file."""
    # The exporter warns of its own deprecations, and logs that the unneeded torchvision is absent.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net.eval(),
            example,
            path,
            input_names=inputs,
            output_names=outputs,
            dynamic_shapes=shapes,
            dynamo=True,
            external_data=False,
            verbose=False,
        )


@dataclass(frozen=True)
class Networks:
    """What a bundle exports, as torch has it."""

    net: UNet
    detector: Detector | None
    features: FeatureDistance | None

    @classmethod
    def of_bundle(cls, bundle: Bundle) -> "Networks":
        """As they were trained, from the weights beside the exported ones."""
        return cls(
            load_net(bundle),
            None if bundle.manifest.detector is None else load_detector(bundle),
            load_features(bundle) if FEATURES_FILE in bundle.manifest.files else None,
        )


def check_networks(
    networks: Networks,
    folder: Path,
    golden: NDArray[np.float32],
    reduce: int,
    process: DiffusionProcess,
    largest_timestep: float,
    tolerance: float = TOLERANCE,
) -> float:
    """Largest difference of anything that was exported to `folder` on golden images `[N, C, H, W]`.

    ExportError beyond the tolerance.
    """
    small = shrink(golden, reduce)
    timesteps = sorted({1.0, largest_timestep / 2, float(largest_timestep)})
    found = [check_parity(networks.net, folder / "model.onnx", small, process, timesteps, tolerance)]
    if networks.detector is not None:
        found.append(check_detector(networks.detector, folder / "detector.onnx", golden, tolerance))
    if networks.features is not None:
        found.append(check_features(networks.features, folder / FEATURES_FILE, small, tolerance))
    return max(found)


def check_detector(
    detector: Detector, onnx: Path, golden: NDArray[np.float32], tolerance: float = TOLERANCE
) -> float:
    """Largest difference of evidence and features on golden images `[N, C, H, W]`, as a batch and one by one.

    The evidence is logits and log distances, of order 1, as the features are. ExportError beyond the
    tolerance.
    """
    reference, exported = TorchDetector(detector), OnnxDetector(onnx)
    rows = [slice(0, len(golden)), *(slice(i, i + 1) for i in range(len(golden)))]
    worst = 0.0
    whole = reference(golden)
    for row in rows:
        found = exported(golden[row])
        assert found.features is not None
        assert whole.features is not None
        worst = max(worst, float(np.abs(found.evidence - whole.evidence[row]).max()))
        worst = max(worst, float(np.abs(found.features - whole.features[row]).max()))
    if not worst <= tolerance:
        raise ExportError(
            f"ONNX and torch detectors differ by {worst:.2e} (allowed {tolerance:.0e}); nothing published"
        )
    return worst


def check_features(
    distance: FeatureDistance, onnx: Path, golden: NDArray[np.float32], tolerance: float = TOLERANCE
) -> float:
    """Largest difference of the distances between golden images `[N, C, H, W]` and what stands in for their
    reconstructions, as a batch and one by one; cosines, so of order 1. ExportError beyond the tolerance."""
    reference, exported = TorchFeatures(distance), OnnxFeatures(onnx)
    others = np.ascontiguousarray(0.5 * golden[::-1, :, ::-1])
    worst = 0.0
    for source in distance.names:
        expected = reference(source, golden, others)
        rows = [slice(i, i + 1) for i in range(len(golden))]
        singles = np.concatenate([exported(source, golden[row], others[row]) for row in rows])
        for got in (exported(source, golden, others), singles):
            worst = max(worst, float(np.abs(got - expected).max()))
    if not worst <= tolerance:
        raise ExportError(
            f"ONNX and torch features differ by {worst:.2e} (allowed {tolerance:.0e}); nothing published"
        )
    return worst


def check_parity(
    net: UNet,
    onnx: Path,
    golden: NDArray[np.float32],
    process: DiffusionProcess,
    timesteps: list[float],
    tolerance: float = TOLERANCE,
) -> float:
    """Largest |eps_torch - eps_onnx| on golden images `[N, C, H, W]` at each timestep, at two sizes, as a
    batch and one by one, and for every class; ExportError beyond the tolerance."""
    plain, exported = TorchDenoiser(net), OnnxDenoiser(onnx)
    labels = range(net.config.classes) if net.config.classes else (None,)
    worst = max(
        _largest_difference(
            of_part(plain, label), of_part(exported, label), net.config.stride, golden, process, timesteps
        )
        for label in labels
    )
    if not worst <= tolerance:
        raise ExportError(
            f"ONNX and torch differ by {worst:.2e} (allowed {tolerance:.0e}); nothing published"
        )
    return worst


def _largest_difference(
    reference: Denoiser,
    exported: Denoiser,
    stride: int,
    golden: NDArray[np.float32],
    process: DiffusionProcess,
    timesteps: list[float],
) -> float:
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
    return worst
