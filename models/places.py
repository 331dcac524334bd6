"""What is usual at each place, for parts that are framed alike and share fine structure.

One Gaussian over all places must take for usual whatever occurs anywhere on a board: a pad where there should
be none is a pad. So each place has a Gaussian of its own (PaDiM, Defard et al. 2021, arXiv 2011.08785), of
features at stride 8, fine enough for a trace. `trainer.places` finds out whether parts are such, and fits it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Places(nn.Module):
    """Fine features `[B, F, H / 8, W / 8]` of images of one size -> log squared Mahalanobis distance from
    what is usual at each place, `[B, 1, h, w]`, where a place is `place_px` of the image wide."""

    mean: Tensor
    whiten: Tensor

    def __init__(self, size: tuple[int, int], place_px: int, channels: int, stride: int) -> None:
        super().__init__()
        self.size, self.place_px = size, place_px
        self._stride = stride
        self.register_buffer("mean", torch.zeros(channels, *size))
        self.register_buffer("whiten", torch.zeros(size[0] * size[1], channels, channels))

    def forward(self, features: Tensor) -> Tensor:
        away = (
            (per_place(features, self.place_px // self._stride) - self.mean).flatten(2).permute(2, 0, 1)
        )  # [P, B, F]
        z = away @ self.whiten
        squared = z.square().mean(dim=2).T
        return squared.clamp_min(1e-6).log().reshape(-1, 1, *self.size)


def per_place(features: Tensor, width: int) -> Tensor:
    """Features `[B, F, H / 8, W / 8]`, averaged with the eight around them -> means of `width` x `width`."""
    near = F.avg_pool2d(features, 3, stride=1, padding=1, count_include_pad=False)
    return F.avg_pool2d(near, width) if width > 1 else near
