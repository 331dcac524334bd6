"""Penalties and reductions: two of the slots of a training step, each chosen by name in the recipe.

A penalty maps residuals `[B, C, H, W]` and timesteps `[B]` to losses of the same shape; a reduction
maps losses and timesteps to a scalar. A new robust loss is one function here, its citation, its test.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Penalty = Callable[[Tensor, Tensor], Tensor]
Reduction = Callable[[Tensor, Tensor], Tensor]


def mse() -> Penalty:
    """Squared error (DDPM, Ho et al. 2020, eq. 14)."""
    return lambda residual, t: residual.square()


def huber(delta: float = 0.1, scaled: bool = True) -> Penalty:
    """Elementwise Huber (RDDPM, Moradi & Paynabar 2025): r^2/2 up to delta, delta (|r| - delta/2) beyond.

    `scaled` divides by delta, so the gradient is bounded by 1 and the loss tends to L1, not to 0, as
    delta -> 0. Unscaled, delta -> inf gives r^2/2 and the gradient never exceeds delta.
    """
    if delta <= 0:
        raise ValueError(f"delta must be positive, got {delta}")
    weight = 1.0 / delta if scaled else 1.0
    return lambda residual, t: (
        weight * F.huber_loss(residual, torch.zeros_like(residual), reduction="none", delta=delta)
    )


def mean() -> Reduction:
    return lambda losses, t: losses.mean()


PENALTIES: dict[str, Callable[..., Penalty]] = {"mse": mse, "huber": huber}
REDUCTIONS: dict[str, Callable[..., Reduction]] = {"mean": mean}
