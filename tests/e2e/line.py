"""The line as real processes: data drawn, a model trained, a service running on a port of its own."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from deploy import processes

STOP_TIMEOUT_S = 30
USER = ("eva", "--role", "admin")
PASSWORD = "a password of several words"

# Small enough for seconds; what is trained here is not expected to find anything.
RECIPE = """
[data]
size = 32
[network]
widths = [16, 24]
[training]
batch_size = 4
precision = "fp32"
[calibration]
max_calls = 64
min_images = 8
[profiles.paper]
kind = "chain"
t_noise = 100
t_start = 100
n_steps = 4
[profiles.fast]
kind = "one_step"
timesteps = [50, 100]
"""


def tool(name: str, *arguments: object, expect: int = 0, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run one of our commands as a user would and check its exit status."""
    return processes.tool(name, *arguments, may_end=(expect,), stdin=stdin, timeout_s=240)


def new_key(data: Path, name: str, scope: str = "admin", *flags: object) -> dict[str, str]:
    """The header of a new key for the service on this folder."""
    return processes.new_key(name, scope, "--data", data, *flags)


@contextmanager
def serving(bundle: Path, data: Path) -> Iterator[str]:
    """A service on a free port -> its address; asserts that SIGTERM ends it with status 0."""
    data.mkdir(parents=True, exist_ok=True)
    tool("inlier-service", "users", "add", *USER, "--data", data, stdin=PASSWORD)
    words = ("serve", "--bundle", bundle, "--data", data, "--port", 0)
    process = processes.Process(data.with_name(data.name + ".log"), *words)
    process.start()
    try:
        yield process.address
    finally:
        status = process.stop(STOP_TIMEOUT_S)
    assert status == 0, process.log


@dataclass(frozen=True)
class Line:
    parts: Path  # images in the MVTec-AD layout
    bundle: Path
    data: Path  # the service's folder
    url: str
    key: dict[str, str]

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", headers=self.key, timeout=60)

    def post(self, image: Path, **query: str) -> httpx.Response:
        headers = {**self.key, "Content-Type": "image/png", "Prefer": "wait=30"}
        return httpx.post(
            f"{self.url}/v1/inspections",
            content=image.read_bytes(),
            params=query,
            headers=headers,
            timeout=60,
        )
