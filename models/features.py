"""Features of an image beside those of its reconstruction, of a network that the bundle has anyway.

As in DDAD (Mousakhan et al. 2023), two images are compared by the cosine of their features at every place
of several levels. The features come from the detector's backbone, or from the diffusion model itself: the
encoder of a denoiser tells the parts of an image apart (Baranchuk et al. 2022), and needs no other weights.
"""

import math
from collections.abc import Iterable, Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbone import STRIDE, Backbone
from models.profiles import FeatureSource
from models.unet import UNet

TIMESTEP = 5.0
"""At which the diffusion model looks at an image without noise: the least noise that it knows well."""
_TINY = 1e-3  # features smaller than this say nothing


class NetworkFeatures(nn.Module):
    """Every level of the diffusion model's encoder, its middle in place of the coarsest.

    Images `[B, C, H, W]` in [-1, 1] -> `[B, F, H / s, W / s]` for each stride s; so is every source's.
    """

    def __init__(self, net: UNet) -> None:
        super().__init__()
        self.net = net
        self.strides: tuple[int, ...] = tuple(
            net.config.patch * 2**level for level in range(len(net.config.widths))
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        t = torch.full((images.shape[0],), TIMESTEP, device=images.device)
        middle, skips, _ = self.net.encode(images, t)
        blocks = self.net.config.blocks
        return [*skips[blocks:-1:blocks], middle]


class BackboneFeatures(nn.Module):
    """The middle levels of the detector's backbone, as in DDAD: neither grain nor whole parts."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.strides: tuple[int, ...] = (8, 16)
        self.backbone = backbone

    def forward(self, images: Tensor) -> list[Tensor]:
        _, near, far, _ = self.backbone(images.expand(-1, 3, -1, -1))
        return [near, far]


Source = NetworkFeatures | BackboneFeatures


class FeatureDistance(nn.Module):
    """Images and reconstructions `[B, C, H, W]` -> for each source by name, their distance `[B, H, W]`.

    Sides are divisible by `stride`. The distance is that of `cosine_distance`, averaged over the levels.
    """

    def __init__(self, sources: Mapping[FeatureSource, Source], stride: int) -> None:
        super().__init__()
        self.names = tuple(sources)
        self.stride = stride
        self.sources = nn.ModuleDict({str(name): source for name, source in sources.items()})

    def forward(self, images: Tensor, reconstructions: Tensor) -> tuple[Tensor, ...]:
        sources = cast(Iterable[Source], self.sources.values())
        return tuple(_distance(source, images, reconstructions) for source in sources)


def feature_distance(
    sources: Iterable[FeatureSource], net: UNet, backbone: Backbone | None
) -> FeatureDistance:
    """The comparison by these sources; a ValueError for features of a backbone that is not there."""
    found: dict[FeatureSource, Source] = {}
    stride = net.config.stride
    for name in sorted(set(sources)):
        if name == "network":
            found[name] = NetworkFeatures(net)
        elif backbone is None:
            raise ValueError(f"there is no backbone to take {name} features from")
        else:
            found[name] = BackboneFeatures(backbone)
            stride = math.lcm(stride, STRIDE)
    return FeatureDistance(found, stride).eval()


def cosine_distance(a: Tensor, b: Tensor) -> Tensor:
    """1 - cosine of feature maps `[B, F, h, w]` at each place, in [0, 2] -> `[B, 1, h, w]`.

    Written as half the squared distance of the two directions, which is exactly 0 for equal ones.
    """
    return 0.5 * (F.normalize(a, eps=_TINY) - F.normalize(b, eps=_TINY)).square().sum(dim=1, keepdim=True)


def _distance(source: Source, images: Tensor, reconstructions: Tensor) -> Tensor:
    grown = [
        F.interpolate(cosine_distance(a, b), scale_factor=float(stride), mode="bilinear")
        for a, b, stride in zip(source(images), source(reconstructions), source.strides, strict=True)
    ]
    return torch.cat(grown, dim=1).mean(dim=1)
