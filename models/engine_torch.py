"""The network under torch: for training nodes, and the reference the ONNX export is compared with."""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from models.bundle import Bundle
from models.detector import Detector, DetectorConfig
from models.evidence import Look
from models.features import FeatureDistance, feature_distance
from models.profiles import FeatureSource
from models.unet import UNet, UNetConfig, channels_last

Float = NDArray[np.float32]


class TorchDenoiser:
    """A UNet as a denoiser on numpy arrays; `bf16` runs it under bfloat16 autocast."""

    def __init__(self, net: UNet, bf16: bool = False) -> None:
        self._net = net.eval()
        self._bf16 = bf16

    @classmethod
    def from_bundle(cls, bundle: Bundle, device: Literal["cpu", "gpu"] = "cpu") -> "TorchDenoiser":
        return cls(channels_last(load_net(bundle).to(_device(device))))

    @torch.inference_mode()
    def __call__(self, x: Float, t: Float, label: NDArray[np.int64] | None = None) -> Float:
        device = next(self._net.parameters()).device
        images = torch.from_numpy(x).to(device, memory_format=torch.channels_last)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self._bf16):
            known = () if label is None else (torch.from_numpy(label).to(device),)
            eps = self._net(images, torch.from_numpy(t).to(device), *known)
        return np.asarray(eps.float().cpu().contiguous().numpy(), dtype=np.float32)


class TorchDetector:
    """A detector on numpy arrays."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector.eval()

    @classmethod
    def from_bundle(cls, bundle: Bundle, device: Literal["cpu", "gpu"] = "cpu") -> "TorchDetector":
        return cls(load_detector(bundle).to(_device(device)))

    @torch.inference_mode()
    def __call__(self, images: Float) -> Look:
        x = torch.from_numpy(images).to(self._detector.mean.device)
        evidence, features = (part.float().cpu().contiguous().numpy() for part in self._detector(x))
        return Look(evidence, features)


class TorchFeatures:
    """A comparison of features on numpy arrays."""

    def __init__(self, distance: FeatureDistance) -> None:
        self._distance = distance.eval()

    @classmethod
    def from_bundle(cls, bundle: Bundle, device: Literal["cpu", "gpu"] = "cpu") -> "TorchFeatures":
        return cls(load_features(bundle).to(_device(device)))

    @torch.inference_mode()
    def __call__(self, source: FeatureSource, images: Float, reconstructions: Float) -> Float:
        device = next(self._distance.parameters()).device
        x, y = (torch.from_numpy(np.ascontiguousarray(part)).to(device) for part in (images, reconstructions))
        distances = dict(zip(self._distance.names, self._distance(x, y), strict=True))
        return np.asarray(distances[source].cpu().numpy(), dtype=np.float32)


def load_net(bundle: Bundle) -> UNet:
    """The trained network of a bundle."""
    net = UNet(UNetConfig.from_dict(bundle.manifest.network.shape()))
    net.load_state_dict(load_file(bundle.file("model.safetensors")))
    return net


def load_detector(bundle: Bundle) -> Detector:
    """The detector of a bundle that has one."""
    assert bundle.manifest.detector is not None
    detector = Detector(DetectorConfig(**bundle.manifest.detector.model_dump(exclude={"backbone"})))
    detector.load_state_dict(load_file(bundle.file("detector.safetensors")))
    return detector


def load_features(bundle: Bundle) -> FeatureDistance:
    """The comparison of features that a bundle's profiles ask for."""
    names = {profile.map.features for profile in bundle.manifest.profiles.values()}
    backbone = None if bundle.manifest.detector is None else load_detector(bundle).backbone
    return feature_distance([name for name in names if name != "none"], load_net(bundle), backbone)


def _device(name: Literal["cpu", "gpu"]) -> torch.device:
    return torch.device("cuda" if name == "gpu" else "cpu")
