"""What the speed benchmark counts, on cases whose answer is known."""

import time

import numpy as np
import pytest
import torch
from torch import nn

from deploy.bench.speed.arms import plain_loop, table
from deploy.bench.speed.limit import Need, need
from deploy.bench.speed.timing import Arm, Rates, alternate
from models.process import DiffusionProcess

PROCESS = DiffusionProcess()


def test_multiply_adds_and_bytes_of_a_convolution_and_a_linear_layer() -> None:
    conv, linear = nn.Conv2d(8, 16, 3, padding=1, bias=False), nn.Linear(16, 4, bias=False)
    found = need(
        nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear), torch.zeros(1, 8, 32, 32)
    )
    assert found.gmac == pytest.approx((8 * 16 * 9 * 32 * 32 + 16 * 4) / 1e9)
    weights, maps = 8 * 16 * 9 + 16 * 4, (8 + 16) * 32 * 32 + 16 + 4
    assert found.mbyte == pytest.approx(4 * (weights + maps) / 1e6)


def test_every_arm_runs_in_every_round_and_its_own_time_counts() -> None:
    arms = [Arm("long", lambda: time.sleep(0.05), 1), Arm("short", lambda: time.sleep(0.01), 2)]
    rates = alternate(arms, 3, "wall", lambda text: None)
    assert [len(arm.spent_s) for arm in arms] == [3, 3]
    assert all(len(rate) == 3 and (rate > 0).all() for rate in rates.values())
    assert "fp32" in rates
    assert (arms[0].image_ms >= 50).all()
    assert (arms[1].image_ms >= 5).all()


def test_chains_are_scaled_to_250_steps_and_the_limit_is_a_share() -> None:
    plain = Arm("plain", lambda: None, 1, 25, True, Need(0.5, 1.0), spent_s=[1.0, 1.0])
    batch = Arm("batch", lambda: None, 8, 25, True, Need(0.5, 1.0), spent_s=[4.0, 4.0])
    fast = Arm("fast", lambda: None, 8, 5, False, Need(0.5, 1.0), spent_s=[0.8, 0.8])
    half = Arm("half", lambda: None, 8, 5, False, Need(0.5, 1.0), "bf16", spent_s=[0.8, 0.8])
    rates: Rates = {"fp32": np.array([25.0, 25.0]), "bf16": np.array([50.0, 50.0])}
    rows = table([plain, batch, fast, half], rates, 25).splitlines()[-4:]
    cells = [[cell.split("(")[0].strip() for cell in row.split("|")[3:8]] for row in rows]
    assert cells[0] == ["250", "40.0", "0.100", "1.00", "0.50"]  # 12.5 GMAC in a second of 25
    assert cells[1] == ["250", "20.0", "0.200", "2.00", "1.00"]
    assert cells[2] == ["5", "20.0", "10.000", "100.00", "1.00"]
    assert cells[3] == ["5", "20.0", "10.000", "100.00", "0.50"]  # of a limit twice as high


def test_the_plain_loop_ends_at_what_its_network_knows() -> None:
    net = _Knows(0.25)
    image = torch.full((1, 32, 32), 0.25).numpy()
    found = plain_loop(net, PROCESS, image, steps=20)
    assert found.shape == (1, 1, 32, 32)
    torch.testing.assert_close(found, torch.full_like(found, 0.25), atol=1e-3, rtol=0)


class _Knows(nn.Module):
    """The exact noise in a noised constant image."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self._value = value

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        abar = float(PROCESS.abar(t.numpy())[0])
        return (x - abar**0.5 * self._value) / (1 - abar) ** 0.5
