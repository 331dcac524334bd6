"""What the machine could do: how fast it multiplies matrices, in each precision, and copies memory; what a
network call needs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from trainer.device import choose_precision

Clock = Callable[[], float]
Precision = Literal["fp32", "bf16"]
SIDE = 1024


@dataclass(frozen=True)
class Need:
    """Of one image in one network call."""

    gmac: float  # multiply-adds of convolutions, linear layers and attention, in 1e9
    mbyte: float  # inputs and outputs of those layers, and the weights, each moved once, in 1e6


def native() -> tuple[Precision, ...]:
    """What this CPU multiplies."""
    return ("fp32", "bf16") if choose_precision("auto", "cpu") == "bf16" else ("fp32",)


class MatMul:
    """Square products by the fastest of numpy's and torch's libraries, in each precision: the limits."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        a, b = (rng.standard_normal((SIDE, SIDE), dtype=np.float32) for _ in range(2))
        single = torch.from_numpy(a), torch.from_numpy(b)
        half = single[0].bfloat16(), single[1].bfloat16()
        self._products: dict[Precision, list[Callable[[], object]]] = {
            "fp32": [lambda: a @ b, lambda: torch.mm(*single)],
        }
        if "bf16" in native():
            self._products["bf16"] = [lambda: torch.mm(*half)]

    def gmac_s(self, clock: Clock) -> dict[Precision, float]:
        """Billions of multiply-adds a second, now, in each precision that the CPU multiplies; the best of
        several."""
        return {
            precision: max(_rate(product, clock) for product in products * 12)
            for precision, products in self._products.items()
        }


def _rate(product: Callable[[], object], clock: Clock) -> float:
    started = clock()
    product()
    return SIDE**3 / 1e9 / (clock() - started)


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
