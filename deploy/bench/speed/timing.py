"""Ways of doing one thing, timed in turn in one process: what else runs weighs on all alike."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from deploy.bench.speed.limit import MatMul, Need, Precision

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
ClockName = Literal["wall", "cpu"]
Rates = dict[Precision, np.ndarray]
"""Billions of multiply-adds a second, `[rounds]`, in each precision."""


@dataclass
class Arm:
    """One way, and what it took in every round."""

    name: str
    run: Callable[[], object]
    images: int  # in one run
    calls: int = 0  # network calls of one image; 0: not counted
    chain: bool = False  # a chain that stands for one of 250 calls
    need: Need | None = None
    precision: Precision = "fp32"  # of its multiplications
    spent_s: list[float] = field(default_factory=list)

    @property
    def image_ms(self) -> np.ndarray:
        """Milliseconds an image, of every round; of a chain with as many steps as were run."""
        return np.asarray(self.spent_s) * 1000 / self.images


def alternate(arms: Sequence[Arm], rounds: int, clock: ClockName, told: Callable[[str], None]) -> Rates:
    """Run all arms in every round, each round in another order; the matrix rates of every round."""
    matmul, rates = MatMul(), []
    now, rng = CLOCKS[clock], np.random.default_rng(0)
    for arm in arms:
        arm.run()  # what is only done once
    for number in range(rounds):
        rates.append(matmul.gmac_s(now))
        for index in rng.permutation(len(arms)):
            started = now()
            arms[index].run()
            arms[index].spent_s.append(now() - started)
        told(f"round {number + 1} of {rounds}: {rates_told(rates[-1])}")
    return {precision: np.asarray([each[precision] for each in rates]) for precision in rates[0]}


def rates_told(rates: Mapping[Precision, float]) -> str:
    """As a person reads it."""
    return ", ".join(f"{rate:.0f} GMAC/s in {precision}" for precision, rate in rates.items())
