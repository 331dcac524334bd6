"""Pretrained features for baselines: two stages of EfficientNet-Lite0 (`models.backbone`)."""

from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from models.backbone import STRIDE, TAP_CHANNELS, Backbone
from trainer.pretrained import load_state

Depth = Literal["middle", "deep"]
_FINE = {"middle": 1, "deep": 2}  # of the backbone's maps: strides 8 and 16; the coarse stage is the next


class Features(Protocol):
    """What feature-based baselines need of a network."""

    def features(self, images: Tensor) -> Tensor:
        """Images `[B, C, H, W]` in [-1, 1], gray or RGB -> one vector per patch `[B, F, h, w]`."""
        ...


class TwoStages:
    """Features as in PatchCore (Roth et al. 2022, arXiv 2106.08265, section 3.1).

    Two stages of the network, each averaged over 3 x 3 neighbours so that a vector sees around itself, the
    coarser one brought to the finer one's grid: the "middle" ones, as in the paper, at strides 8 and 16, or
    the "deep" ones at 16 and 32.
    """

    def __init__(self, network: Backbone, depth: Depth = "middle") -> None:
        self._network, self._fine = network.eval(), _FINE[depth]
        self.channels = TAP_CHANNELS[self._fine] + TAP_CHANNELS[self._fine + 1]
        self.stride = 4 * 2**self._fine

    @torch.inference_mode()
    def features(self, images: Tensor) -> Tensor:
        """Images `[B, C, H, W]` in [-1, 1], gray or RGB -> `[B, F, H / stride, W / stride]`, rounded up."""
        height, width = images.shape[-2:]
        padded = functional.pad(images, (0, -width % STRIDE, 0, -height % STRIDE), mode="replicate")
        maps = self._network(padded.expand(-1, 3, -1, -1))
        fine, coarse = (_neighbourhood(maps[index]) for index in (self._fine, self._fine + 1))
        coarse = functional.interpolate(coarse, fine.shape[-2:], mode="bilinear", align_corners=False)
        joined = torch.cat([fine, coarse], dim=1)
        return joined[:, :, : -(-height // self.stride), : -(-width // self.stride)]


def _neighbourhood(x: Tensor) -> Tensor:
    """Mean over 3 x 3; at the border over what exists, or the frame of every image would look dim."""
    return functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def load_features(weights: Path | None = None, depth: Depth = "middle") -> TwoStages:
    """The pretrained network, from the file `weights` or from the installed package.

    Raises PretrainedError when the package is missing or the file is not a state dict of this network.
    """
    network = Backbone()
    network.load_state_dict(load_state(weights))
    return TwoStages(network, depth)
