"""A server process under many images: its memory and its open files do not grow with them.

The short form sees a leak of 150 kB an image; `make promises` runs 20 000 images (INLIER_SOAK_REQUESTS)
against 1 MB in 1000. Slopes are least squares over the second half, when caches are full.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.service.conftest import flat

ROOT = Path(__file__).parents[2]
MB = 1e6
REQUESTS = os.environ.get("INLIER_SOAK_REQUESTS", "")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")


@dataclass(frozen=True)
class Growth:
    """What 1000 more images add."""

    bytes: float
    descriptors: float


def slope(counts: list[int], values: list[float]) -> float:
    """Per 1000 images, of the second half."""
    half = len(counts) // 2
    return float(np.polyfit(counts[half:], values[half:], 1)[0]) * 1000


def test_the_slope_is_that_of_the_second_half() -> None:
    counts = list(range(0, 1000, 10))
    assert slope(counts, [5.0 + 3 * count for count in counts]) == pytest.approx(3000)
    assert slope(counts, [min(count, 400.0) for count in counts]) == pytest.approx(0, abs=1e-6)


@contextmanager
def sleeping_server(
    data: Path, leak_bytes: int = 0, delay_s: float = 0.002, **settings: object
) -> Iterator[tuple[int, str]]:
    """A server process whose engine sleeps -> its process id and its address."""
    options = json.dumps({"leak_bytes": leak_bytes, "delay_s": delay_s, **settings})
    command = [sys.executable, "-m", "tests.service.soak_server", str(data), options]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("INLIER_")}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=kept)
    assert process.stdout is not None
    try:
        address = process.stdout.readline().split()[-1]
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                if httpx.get(f"{address}/healthz/ready").status_code == 200:
                    break
            except httpx.TransportError:
                assert process.poll() is None
            time.sleep(0.1)
        yield process.pid, address
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def memory_bytes(pid: int) -> int:
    """What a process holds of the memory (its resident set)."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES


def soak(data: Path, images: int, leak_bytes: int = 0) -> Growth:
    """Posts so many, four at once, each of which must end well; looks at the process all along."""
    counts, memory, descriptors = [], list[float](), list[float]()
    every = max(10, images // 100)
    with (
        sleeping_server(data, leak_bytes) as (pid, address),
        httpx.Client(base_url=address, timeout=60) as client,
        ThreadPoolExecutor(4) as pool,
    ):

        def post(number: int) -> None:
            headers = {"Content-Type": "image/png", "Prefer": "wait=60"}
            answer = client.post("/v1/inspections", content=flat(number % 250), headers=headers)
            assert (answer.status_code, answer.json()["status"]) == (200, "done"), answer.text
            assert answer.json()["score"]["raw"] == number % 250

        for first in range(0, images, every):
            list(pool.map(post, range(first, first + every)))
            counts.append(first + every)
            memory.append(memory_bytes(pid))
            descriptors.append(len(list(Path(f"/proc/{pid}/fd").iterdir())))
    return Growth(slope(counts, memory), slope(counts, descriptors))


SHORT_IMAGES, SHORT_BYTES, DESCRIPTORS = 160, 150 * MB, 50


@pytest.mark.promise(24)
@pytest.mark.timeout(180)
def test_images_leave_nothing_behind(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    growth = soak(tmp_path / "data", SHORT_IMAGES)
    record_property(
        f"short form of {SHORT_IMAGES} images, while caches fill: MB in 1000", f"{growth.bytes / MB:.1f}"
    )
    assert growth.bytes < SHORT_BYTES
    assert growth.descriptors < DESCRIPTORS


@pytest.mark.promise(24, control=True)
@pytest.mark.timeout(180)
def test_an_engine_that_leaks_is_noticed(tmp_path: Path) -> None:
    growth = soak(tmp_path / "data", SHORT_IMAGES // 2, leak_bytes=500_000)
    assert growth.bytes > SHORT_BYTES
    assert growth.descriptors > DESCRIPTORS


@pytest.mark.promise(24)
@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.skipif(not REQUESTS, reason="an hour; make promises runs it, as does INLIER_SOAK_REQUESTS=20000")
def test_thousands_of_images_leave_nothing_behind(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    images = int(REQUESTS)
    growth = soak(tmp_path / "data", images)
    record_property(f"MB in 1000 images (of {images})", f"{growth.bytes / MB:.2f}")
    record_property(f"descriptors in 1000 images (of {images})", f"{growth.descriptors:.2f}")
    assert growth.bytes < MB
    assert abs(growth.descriptors) < 1
