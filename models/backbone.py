"""EfficientNet-Lite0 up to its sixth stage (Tan & Le 2019; the "Lite" variant drops squeeze-excitation).

Parameter names follow the published PyTorch state dicts of that network, so pretrained weights load
without a translation; with fresh weights it is a small, cheap encoder like any other.
"""

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

# (repeats, kernel, stride, expansion, channels) of each stage
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
)
STEM = 32
TAPS = (2, 4, 10, 14)
"""Blocks whose output is a feature map: strides 4, 8, 16 and 32 pixels."""
TAP_CHANNELS = (24, 40, 112, 192)
STRIDE = 32
FUSABLE = (
    *(("_conv_stem", "_bn0"), ("_expand_conv", "_bn0")),
    *(("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")),
)
"""Convolutions, each with the normalisation that follows it at once."""


class Block(nn.Module):
    """Inverted residual: widen, filter each channel, narrow again (Sandler et al. 2018)."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = c_in * expansion
        self._stride, self._kernel = stride, kernel
        self._shortcut = stride == 1 and c_in == c_out
        if expansion > 1:
            self._expand_conv = nn.Conv2d(c_in, wide, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(wide, eps=1e-3, momentum=0.01)
        self._depthwise_conv = nn.Conv2d(wide, wide, kernel, stride, groups=wide, bias=False)
        self._bn1 = nn.BatchNorm2d(wide, eps=1e-3, momentum=0.01)
        self._project_conv = nn.Conv2d(wide, c_out, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(c_out, eps=1e-3, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu6(self._bn0(self._expand_conv(x))) if hasattr(self, "_expand_conv") else x
        h = self._depthwise_conv(_pad(h, self._kernel, self._stride))
        h = self._bn2(self._project_conv(F.relu6(self._bn1(h))))
        return x + h if self._shortcut else cast(Tensor, h)


class Backbone(nn.Module):
    """Images `[B, 3, H, W]` in [-1, 1], sides divisible by 32 -> feature maps at strides 4, 8, 16, 32."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = nn.Conv2d(3, STEM, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(STEM, eps=1e-3, momentum=0.01)
        blocks, width = [], STEM
        for repeats, kernel, stride, expansion, channels in STAGES:
            for index in range(repeats):
                blocks.append(Block(width, channels, kernel, stride if index == 0 else 1, expansion))
                width = channels
        self._blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> list[Tensor]:
        h = F.relu6(self._bn0(self._conv_stem(_pad(x, 3, 2))))
        maps = []
        for index, block in enumerate(self._blocks):
            h = block(h)
            if index in TAPS:
                maps.append(h)
        return maps


def _pad(x: Tensor, kernel: int, stride: int) -> Tensor:
    """The "same" padding these weights were trained with; an odd pixel goes to the right and below."""
    total = kernel - stride if stride > 1 else kernel - 1
    return F.pad(x, (total // 2, total - total // 2, total // 2, total - total // 2))
