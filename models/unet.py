"""The denoising network: a small time-conditioned U-Net with a pixel-unshuffle stem.

Residual blocks with FiLM time conditioning follow Dhariwal & Nichol 2021 (ADM); the stem that
folds 2x2 pixels into channels is the usual way to buy speed at no loss of output resolution.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.group_norm import GroupNorm


@dataclass(frozen=True)
class UNetConfig:
    """Everything that fixes the network's shape; stored in the bundle's manifest."""

    channels: int = 3
    widths: tuple[int, ...] = (48, 96, 144, 192)
    blocks: int = 1
    patch: int = 2  # pixel-unshuffle factor of the stem, 1 for none
    groups: int = 8
    attention: bool = True  # self-attention at the coarsest level only
    clean_scale: float = 0.0  # s of `models.process.noise_estimate`; 0 is plain noise prediction
    classes: int = 0  # kinds of parts, told to the network by a label; 0 for none

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise ValueError(f"channels must be 1 or 3, got {self.channels}")
        if not self.widths or self.blocks < 1 or self.patch < 1:
            raise ValueError("widths must not be empty; blocks and patch must be at least 1")
        if self.classes < 0 or self.classes == 1:
            raise ValueError(f"classes must be 0 or at least 2, got {self.classes}")
        if self.clean_scale < 0:
            raise ValueError(f"clean_scale must not be negative, got {self.clean_scale}")
        if any(width % self.groups or width % 4 for width in self.widths):
            raise ValueError(f"widths {self.widths} must be multiples of groups={self.groups} and 4")

    @property
    def stride(self) -> int:
        """Image height and width must be divisible by this many pixels."""
        return int(self.patch * 2 ** (len(self.widths) - 1))

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "widths": list(self.widths)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "UNetConfig":
        return cls(**{**values, "widths": tuple(values["widths"])})


def timestep_embedding(t: Tensor, dim: int) -> Tensor:
    """Sinusoidal features of timesteps `[B]`, which may be fractional -> `[B, dim]` (Ho et al. 2020)."""
    exponent = torch.arange(dim // 2, device=t.device, dtype=torch.float32) / (dim // 2)
    angle = t.float()[:, None] * torch.exp(-math.log(10_000.0) * exponent)[None]
    return torch.cat([angle.sin(), angle.cos()], dim=1)


class ResBlock(nn.Module):
    """norm-SiLU-conv twice, with a time-dependent scale and shift before the second conv."""

    def __init__(self, c_in: int, c_out: int, time_dim: int, groups: int) -> None:
        super().__init__()
        self.norm1 = GroupNorm(groups, c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.film = nn.Linear(time_dim, 2 * c_out)
        self.norm2 = GroupNorm(groups, c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.skip = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(cast(Tensor, self.conv2.bias))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.film(time)[:, :, None, None].chunk(2, dim=1)
        h = self.norm2(h) * (1 + scale) + shift
        return cast(Tensor, self.skip(x) + self.conv2(F.silu(h)))


class SelfAttention(nn.Module):
    """Global self-attention over the positions of a feature map."""

    def __init__(self, width: int, groups: int, head_dim: int = 32) -> None:
        super().__init__()
        self.heads = max(1, width // head_dim)
        while width % self.heads:
            self.heads -= 1
        self.norm = GroupNorm(groups, width)
        self.qkv = nn.Conv2d(width, 3 * width, 1)
        self.out = nn.Conv2d(width, width, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(cast(Tensor, self.out.bias))

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        qkv = self.qkv(self.norm(x)).reshape(b, 3, self.heads, c // self.heads, h * w)
        q, k, v = qkv.transpose(-1, -2).unbind(1)  # [B, heads, H*W, c/heads]
        h_attended = F.scaled_dot_product_attention(q, k, v)
        return cast(Tensor, x + self.out(h_attended.transpose(-1, -2).reshape(b, c, h, w)))


class UNet(nn.Module):
    """From `x_t [B, C, H, W]` at timesteps `[B]` (0..T, fractions allowed) to a prediction of the same shape.

    `models.process.noise_estimate` turns it into noise. Works for any height and width divisible by
    `config.stride`. With classes it also takes labels `[B]` int64, whose embedding joins that of the
    timestep (class conditioning as in Dhariwal & Nichol 2021); ValueError when they are missing or unasked.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        widths, groups = config.widths, config.groups
        self.time_features = widths[0]
        time_dim = 4 * widths[0]
        folded = config.channels * config.patch**2
        self.time_mlp = nn.Sequential(
            nn.Linear(self.time_features, time_dim), nn.SiLU(), nn.Linear(time_dim, time_dim), nn.SiLU()
        )
        if config.classes:
            self.class_embedding = nn.Embedding(config.classes, time_dim)
        self.stem = nn.Conv2d(folded, widths[0], 3, padding=1)

        self.down = nn.ModuleList()
        self.shrink = nn.ModuleList()
        skips = [widths[0]]
        width = widths[0]
        for level, next_width in enumerate(widths):
            blocks = nn.ModuleList()
            for _ in range(config.blocks):
                blocks.append(ResBlock(width, next_width, time_dim, groups))
                width = next_width
                skips.append(width)
            self.down.append(blocks)
            last = level == len(widths) - 1
            self.shrink.append(nn.Identity() if last else nn.Conv2d(width, width, 3, stride=2, padding=1))
        self.middle1 = ResBlock(width, width, time_dim, groups)
        self.attend = SelfAttention(width, groups) if config.attention else nn.Identity()
        self.middle2 = ResBlock(width, width, time_dim, groups)

        self.up = nn.ModuleList()
        self.grow = nn.ModuleList()
        for level in reversed(range(len(widths))):
            blocks = nn.ModuleList()
            for _ in range(config.blocks):
                blocks.append(ResBlock(width + skips.pop(), widths[level], time_dim, groups))
                width = widths[level]
            self.up.append(blocks)
            self.grow.append(nn.Conv2d(width, widths[level - 1], 3, padding=1) if level else nn.Identity())
            width = widths[level - 1] if level else width
        self.norm_out = GroupNorm(groups, width + skips.pop())
        self.conv_out = nn.Conv2d(2 * width, folded, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(cast(Tensor, self.conv_out.bias))

    def encode(
        self, x: Tensor, t: Tensor, label: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor], Tensor]:
        """The way down -> the middle, what leads to it, finest first (the stem, then every block), and the
        embedding of time and label."""
        time = self._condition(t, label)
        patch = self.config.patch
        h = self.stem(F.pixel_unshuffle(x, patch) if patch > 1 else x)
        skips = [h]
        for blocks, shrink in zip(self.down, self.shrink, strict=True):
            for block in cast(nn.ModuleList, blocks):
                h = block(h, time)
                skips.append(h)
            h = shrink(h)
        return self.middle2(self.attend(self.middle1(h, time)), time), skips, time

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        h, skips, time = self.encode(x, t, label)
        patch = self.config.patch
        for blocks, grow in zip(self.up, self.grow, strict=True):
            for block in cast(nn.ModuleList, blocks):
                h = block(torch.cat([h, skips.pop()], dim=1), time)
            if not isinstance(grow, nn.Identity):
                h = grow(F.interpolate(h, scale_factor=2.0, mode="nearest"))
        h = self.conv_out(F.silu(self.norm_out(torch.cat([h, skips.pop()], dim=1))))
        return F.pixel_shuffle(h, patch) if patch > 1 else cast(Tensor, h)

    def _condition(self, t: Tensor, label: Tensor | None) -> Tensor:
        """Timesteps and labels `[B]` -> `[B, time_dim]`."""
        if (label is not None) != bool(self.config.classes):
            what = "needs labels" if label is None else "takes no labels"
            raise ValueError(f"a network of {self.config.classes} classes {what}")
        features = timestep_embedding(t, self.time_features)
        if label is None:
            return cast(Tensor, self.time_mlp(features))
        return F.silu(self.time_mlp[:-1](features) + self.class_embedding(label))


def channels_last(net: UNet) -> UNet:
    """The same network with its weights laid out for channels-last convolutions."""
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
