"""How long a user waits for the service: to import it, and until it is ready to inspect."""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import httpx
import numpy as np

from deploy.bench.speed.timing import Arm
from deploy.processes import BIN


class Child:
    """A process that is run and waited for: how long that took, and its own processor time."""

    def __init__(self, run: partial[None]) -> None:
        self._run, self.wall_s, self.cpu_s = run, list[float](), list[float]()

    def __call__(self) -> None:
        before, started = os.times(), time.perf_counter()
        self._run()
        self.wall_s.append(time.perf_counter() - started)
        after = os.times()
        self.cpu_s.append(
            after.children_user + after.children_system - before.children_user - before.children_system
        )


def import_it(module: str) -> None:
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)


def until_ready(bundle: Path, data: Path) -> None:
    """Start the service on a database that exists, ask until it is ready, end it."""
    command = [BIN / "inlier-service", "serve", "--bundle", bundle, "--data", data, "--port", "0"]
    with subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as it:
        assert it.stdout is not None
        for line in it.stdout:
            if address := re.search(r"http://[\d.]+:\d+", line):
                while httpx.get(f"{address.group()}/healthz/ready", timeout=60).status_code != 200:
                    time.sleep(0.02)
                break
        it.terminate()


def start_arms(bundle: Path) -> list[Arm]:
    data = Path(tempfile.mkdtemp(prefix="inlier-bench-"))
    runs = {
        "`import service`": partial(import_it, "service"),
        "`import service.app`, all of it": partial(import_it, "service.app"),
        "`inlier-service serve` until ready": partial(until_ready, bundle, data),
    }
    return [Arm(name, Child(run), 1) for name, run in runs.items()]


def table(arms: Sequence[Arm]) -> str:
    lines = ["| start | s on the clock | s of processor time |", "|---|---|---|"]
    for arm in arms:
        assert isinstance(arm.run, Child)
        warm = arm.run.wall_s[1:], arm.run.cpu_s[1:]
        cells = [np.quantile(values, (0.5, 0.1, 0.9)) for values in warm]
        said = " | ".join(f"{median:.2f} ({low:.2f} to {high:.2f})" for median, low, high in cells)
        lines.append(f"| {arm.name} | {said} |")
    return "\n".join(lines)
