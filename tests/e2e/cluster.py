"""An API without a model and workers without an API, as real processes on one database, Redis and folder."""

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.e2e.line import BIN, START_TIMEOUT_S, new_key

STOP_TIMEOUT_S = 60


class Process:
    """One of our commands with its log; `address` is what it says it is ready at."""

    def __init__(self, log: Path, *arguments: object) -> None:
        self._log = log
        command = [str(BIN / "inlier-service"), *map(str, arguments)]
        with log.open("wb") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output)
        self.address = self._ready()

    def _ready(self) -> str:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            text = self._log.read_text()
            if found := re.search(r"ready.* at (http://\S+)", text):
                return found[1]
            assert self.process.poll() is None, text
            time.sleep(0.05)
        raise AssertionError(f"not ready after {START_TIMEOUT_S} s\n{self._log.read_text()}")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """As an orchestrator does; asserts that it ends well."""
        self.process.terminate()
        status = self.process.wait(STOP_TIMEOUT_S)
        assert status == 0, self._log.read_text()


class Cluster:
    """Starts the processes; `flags` go to all of them."""

    def __init__(self, folder: Path, key: dict[str, str], *flags: object) -> None:
        self._folder, self._key, self._flags = folder, key, flags
        self._all: list[Process] = []
        self.url = ""

    def api(self) -> Process:
        found = self._start("serve", "--port", 0, "--workers-inside", 0)
        self.url = found.address
        return found

    def worker(self) -> Process:
        return self._start("worker", "--metrics-port", 0)

    def _start(self, name: str, *arguments: object) -> Process:
        log = self._folder / f"{name}-{len(self._all)}.log"
        found = Process(log, name, *arguments, *self._flags)
        self._all.append(found)
        return found

    def post(self, data: bytes, wait_s: int = 0, **query: str) -> httpx.Response:
        headers = {**self._key, "Content-Type": "image/png", "Prefer": f"wait={wait_s}"}
        address = f"{self.url}/v1/inspections"
        return httpx.post(address, content=data, params=query, headers=headers, timeout=90)

    def end(self) -> None:
        for process in self._all:
            if process.process.poll() is None:
                process.kill()


@contextmanager
def cluster(
    folder: Path, bundle: Path, database_url: str, redis_url: str, *flags: object
) -> Iterator[Cluster]:
    """Nothing runs yet; afterwards nothing does any more."""
    common = (
        *("--bundle", bundle, "--data", folder / "data", "--database-url", database_url),
        *("--redis-url", redis_url, "--threads", 1, "--sweep-s", 1, *flags),
    )
    key = new_key(folder / "data", "camera", "camera", "--database-url", database_url)
    found = Cluster(folder, key, *common)
    try:
        yield found
    finally:
        found.end()
