"""Large images: what one network call costs by overlapping tiles, in time and in memory."""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deploy.bench.speed.timing import Arm
from models.bundle import Bundle
from models.engine_onnx import OnnxDenoiser
from models.tiles import TiledDenoiser

TILE_PX, OVERLAP_PX, SIDES = 256, 64, (512, 1024, 2048)
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Peak:
    """How much a run adds to the largest memory of the process, the answer's own left out."""

    def __init__(self, run: partial[NDArray[np.float32]]) -> None:
        self._run, self.mbyte = run, 0.0

    def __call__(self) -> None:
        RESET.write_text("5")
        before = resident_mbyte("VmRSS")
        answer = self._run()
        self.mbyte = max(self.mbyte, resident_mbyte("VmHWM") - before - answer.nbytes / 1e6)


def resident_mbyte(field: str) -> float:
    found = re.search(rf"^{field}:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)
    return int(found.group(1)) * 1024 / 1e6 if found else float("nan")


def tile_arms(bundle: Bundle, threads: int) -> list[Arm]:
    net = TiledDenoiser(OnnxDenoiser(bundle.file("model.onnx"), threads), TILE_PX, OVERLAP_PX, max_rows=4)
    t, arms = np.full(1, 50, dtype=np.float32), []
    for side in SIDES:
        shape = (1, bundle.manifest.network.channels, side, side)
        x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        arms.append(Arm(f"{side} x {side} px", Peak(partial(net, x, t)), 1))
    return arms


def table(arms: Sequence[Arm]) -> str:
    lines = ["| one network call | s | ns a pixel | MB added to the process |", "|---|---|---|---|"]
    for arm, side in zip(arms, SIDES, strict=True):
        low, median, high = np.quantile(arm.spent_s, (0.1, 0.5, 0.9))
        peak = arm.run.mbyte if isinstance(arm.run, Peak) else float("nan")
        a_pixel = median * 1e9 / side**2
        lines.append(f"| {arm.name} | {median:.2f} ({low:.2f} to {high:.2f}) | {a_pixel:.0f} | {peak:.0f} |")
    return "\n".join(lines)
