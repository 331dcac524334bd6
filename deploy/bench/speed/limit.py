"""What the machine could do: how fast it multiplies matrices and copies memory; what a network call needs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

Clock = Callable[[], float]
SIDE = 1024


@dataclass(frozen=True)
class Need:
    """Of one image in one network call."""

    gmac: float  # multiply-adds of convolutions, linear layers and attention, in 1e9
    mbyte: float  # inputs and outputs of those layers, and the weights, each moved once, in 1e6


class MatMul:
    """Square float32 products by numpy's and torch's libraries; the faster one is the limit."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self._a, self._b = (rng.standard_normal((SIDE, SIDE), dtype=np.float32) for _ in range(2))
        self._torch = torch.from_numpy(self._a), torch.from_numpy(self._b)

    def gmac_s(self, clock: Clock) -> float:
        """Billions of multiply-adds a second, now; the best of several."""
        best = 0.0
        for product in (lambda: self._a @ self._b, lambda: torch.mm(*self._torch)) * 4:
            started = clock()
            product()
            best = max(best, SIDE**3 / 1e9 / (clock() - started))
        return best


def copy_gbyte_s(clock: Clock) -> float:
    """Billions of bytes a second, read and written, of a copy far larger than the caches; best of five."""
    source = np.ones(32 * 2**20, dtype=np.float32)
    target, best = np.empty_like(source), 0.0
    for _ in range(5):
        started = clock()
        np.copyto(target, source)
        best = max(best, 2 * source.nbytes / 1e9 / (clock() - started))
    return best


@torch.inference_mode()
def need(net: nn.Module, *inputs: Any) -> Need:
    """Counted on one forward pass of a single image."""
    moved = sum(weights.nbytes for weights in net.parameters())

    def count(module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        nonlocal moved
        moved += sum(tensor.nbytes for tensor in (*given, output) if isinstance(tensor, torch.Tensor))

    layers = [module for module in net.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with FlopCounterMode(display=False) as counted:
        net(*inputs)
    for hook in hooks:
        hook.remove()
    return Need(counted.get_total_flops() / 2e9, moved / 1e6)
