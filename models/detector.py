"""The defect detector: one look at the image itself, beside the diffusion model's reconstruction.

Three pieces of evidence from one feature pyramid:

- `defect`, the logit of a small head trained to find painted defects (`models.corruption`), as in DRAEM
  (Zavrtanik et al. 2021), here on features instead of pixels;
- `distance`, the log Mahalanobis distance of each place's features from those of the training set, one
  Gaussian for all places (PaDiM, Defard et al. 2021, without its assumption that parts are aligned), fitted
  with trimming because the training set is contaminated;
- `wide`, the same of the image at half size, so of surroundings twice as wide.

Where parts are framed alike and share fine structure, `distance` is taken place by place (`models.places`).

They see different defects: the head what looks pasted, the distances what was never seen, small and wide.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbone import STRIDE as BACKBONE_STRIDE
from models.backbone import TAP_CHANNELS, Backbone
from models.group_norm import GroupNorm
from models.places import Places

EVIDENCE = ("defect", "distance", "wide")
"""Output channels, in order."""
SCALES = 2
"""How often the features are looked at: at full and at half size."""
STRIDE = BACKBONE_STRIDE * SCALES
"""Sides of the input must be divisible by this."""
GRID = 4
"""Pixels of the input per pixel of the output."""
FINE, FINE_STRIDE = TAP_CHANNELS[1], 8
"""Channels and stride of the features that are compared place by place."""
SHRINK = 0.03


@dataclass(frozen=True)
class DetectorConfig:
    """The detector's shape; stored in the bundle's manifest."""

    width: int = 96
    groups: int = 8
    places: tuple[int, int] | None = None
    place_px: int = FINE_STRIDE

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Dilated(nn.Module):
    """norm-SiLU-conv twice, added to its input; sees `dilation` places to each side."""

    def __init__(self, width: int, dilation: int, groups: int) -> None:
        super().__init__()
        self.norm1 = GroupNorm(groups, width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation)
        self.norm2 = GroupNorm(groups, width)
        self.conv2 = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        return x + cast(Tensor, self.conv2(F.silu(self.norm2(h))))


class Detector(nn.Module):
    """Images `[B, C, H, W]` in [-1, 1], sides divisible by 64 -> evidence `[B, 3, H / 4, W / 4]`, and
    mean features `[B, D]`, by which an image's kind is told (`models.kinds`)."""

    mean: Tensor
    whiten: Tensor
    places: Places | None

    def __init__(self, config: DetectorConfig = DetectorConfig()) -> None:
        super().__init__()
        self.config = config
        channels, width = sum(TAP_CHANNELS), config.width
        compared = sum(TAP_CHANNELS[2:])
        self.backbone = Backbone()
        self.register_buffer("mean", torch.zeros(SCALES, compared))
        self.register_buffer("whiten", torch.eye(compared).repeat(SCALES, 1, 1))
        self.norm = nn.BatchNorm2d(channels, affine=False, momentum=0.01)
        self.enter = nn.Conv2d(channels, width, 1)
        self.context = nn.Sequential(*(Dilated(width, d, config.groups) for d in (1, 2, 4)))
        self.leave = nn.Conv2d(width, 4, 1)
        self.set_places(
            None if config.places is None else Places(config.places, config.place_px, FINE, FINE_STRIDE)
        )

    def set_places(self, places: Places | None) -> None:
        """Measure `distance` place by place from now on, in images of the places' size; None: as before."""
        self.places = places
        size, place_px = (None, FINE_STRIDE) if places is None else (places.size, places.place_px)
        self.config = replace(self.config, places=size, place_px=place_px)

    def features(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """`[B, C, H, W]` -> features of the head `[B, F, H / 8, W / 8]`, and those the distances compare,
        `[B, G, H / 16, W / 16]` at full and half of it at half size.

        The distances look at neighbourhoods, 3 x 3 places of each level, and leave out the two finest
        levels: these tell edges and grain, which differ from part to part, and drown the rest.
        """
        images = images.expand(-1, 3, -1, -1)
        finest, *levels = self.backbone(images)
        near = [_neighbourhoods(levels[1:])]
        for _ in range(1, SCALES):
            images = F.avg_pool2d(images, 2)
            near.append(_neighbourhoods(self.backbone(images)[2:]))
        return torch.cat([F.avg_pool2d(finest, 2), _joined(levels)], dim=1), near

    def fine(self, features: Tensor) -> Tensor:
        """Features of the head `[B, F, h, w]` -> those compared place by place, `[B, FINE, h, w]`."""
        return features[:, TAP_CHANNELS[0] : TAP_CHANNELS[0] + FINE]

    def defect(self, features: Tensor) -> Tensor:
        """Features `[B, F, h, w]` -> the logit that a defect was painted here, `[B, 1, 2 h, 2 w]`."""
        h = self.context(self.enter(self.norm(features)))
        return F.pixel_shuffle(self.leave(F.silu(h)), 2)

    def distance(self, features: Tensor, scale: int) -> Tensor:
        """A scale's features `[B, G, h, w]` -> log squared Mahalanobis distance `[B, 1, h, w]`."""
        whiten = self.whiten[scale].T[:, :, None, None]
        z = F.conv2d(features - self.mean[scale][None, :, None, None], whiten)
        return z.square().mean(dim=1, keepdim=True).clamp_min(1e-6).log()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        here, near = self.features(images)
        distances = [
            F.interpolate(self.distance(features, scale), scale_factor=4.0 * 2**scale, mode="bilinear")
            for scale, features in enumerate(near)
        ]
        if self.places is not None:
            grow = float(self.config.place_px // GRID)
            distances[0] = F.interpolate(self.places(self.fine(here)), scale_factor=grow, mode="bilinear")
        means = torch.cat([features.mean(dim=(2, 3)) for features in near], dim=1)
        return torch.cat([self.defect(here), *distances], dim=1), means


def _neighbourhoods(levels: list[Tensor]) -> Tensor:
    """Each level averaged over 3 x 3 of its places -> one `[B, G, h, w]` at the first level's stride."""
    return _joined([F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False) for x in levels])


def _joined(levels: list[Tensor]) -> Tensor:
    """Maps each at twice the stride of the one before -> one `[B, G, h, w]` at the first one's stride."""
    grown = [
        F.interpolate(level, scale_factor=float(2**index), mode="bilinear") if index else level
        for index, level in enumerate(levels)
    ]
    return torch.cat(grown, dim=1)


@torch.no_grad()
def fit_gaussian(
    detector: Detector, features: Tensor, scale: int, keep: float = 0.98, rounds: int = 2
) -> None:
    """Set a scale's mean and whitening from feature vectors `[N, G]` of contaminated images.

    Iterated trimming: the share `1 - keep` of the vectors that lie farthest is left out of the next
    estimate, so that defects do not widen what counts as usual; defects are a small share of all places, and
    trimming more would make strangers of the edges of every part. The covariance is shrunk toward its
    diagonal, by 3 % or by G / (G + N) where there are few vectors, and no feature counts as steadier than a
    hundredth of the usual spread; else directions that hardly vary would dominate.
    """
    shrink = max(SHRINK, features.shape[1] / sum(features.shape))
    samples = features.double()
    centre, kept = samples.median(dim=0).values, samples
    precision = torch.eye(samples.shape[1], dtype=torch.float64)
    for _ in range(rounds):
        covariance = torch.cov(kept.T)
        spread = covariance.diagonal()
        floor = (1e-4 * spread.mean()).clamp_min(1e-8)
        precision = torch.linalg.inv(covariance + torch.diag(shrink * spread + floor))
        distance = torch.einsum("ni,ij,nj->n", samples - centre, precision, samples - centre)
        kept = samples[distance <= distance.quantile(keep)]
        centre = kept.mean(dim=0)
    detector.mean[scale].copy_(centre)
    detector.whiten[scale].copy_(torch.linalg.cholesky(precision))


def trainable(detector: Detector, backbone: bool) -> Sequence[nn.Parameter]:
    """The parameters to train: the head's, and the backbone's unless it is pretrained."""
    detector.backbone.requires_grad_(backbone)
    return [parameter for parameter in detector.parameters() if parameter.requires_grad]
