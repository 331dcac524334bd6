"""The line as real processes: data drawn, a model trained, a service running on a port of its own."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

BIN = Path(sys.executable).parent
START_TIMEOUT_S = 60
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
    command = [str(BIN / name), *map(str, arguments)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=240, input=stdin)
    assert run.returncode == expect, f"{run.args}\n{run.stdout}\n{run.stderr}"
    return run


def new_key(data: Path, name: str, scope: str = "admin", *flags: object) -> dict[str, str]:
    """The header of a new key for the service on this folder."""
    made = tool("inlier-service", "keys", "create", name, "--scope", scope, "--data", data, *flags)
    return {"Authorization": f"Bearer {made.stdout.splitlines()[-1]}"}


@contextmanager
def serving(bundle: Path, data: Path) -> Iterator[str]:
    """A service on a free port -> its address; asserts that SIGTERM ends it with status 0."""
    data.mkdir(parents=True, exist_ok=True)
    log = data.with_name(data.name + ".log")
    tool("inlier-service", "users", "add", *USER, "--data", data, stdin=PASSWORD)
    command = [BIN / "inlier-service", "serve", "--bundle", bundle, "--data", data, "--port", 0]
    with log.open("wb") as output:
        process = subprocess.Popen(list(map(str, command)), stdout=output, stderr=output)
        try:
            yield _ready_address(process, log)
        finally:
            process.terminate()
            status = process.wait(STOP_TIMEOUT_S)
    assert status == 0, log.read_text()


def _ready_address(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        for word in log.read_text().split():
            if word.startswith("http://"):
                url = word.rstrip("/.,")
                try:
                    if httpx.get(f"{url}/healthz/ready", timeout=5).status_code == 200:
                        return url
                except httpx.TransportError:
                    pass
        time.sleep(0.1)
    raise AssertionError(f"not ready after {START_TIMEOUT_S} s\n{log.read_text()}")


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
