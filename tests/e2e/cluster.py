"""An API without a model and workers without an API, as real processes on one database, Redis and folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from deploy.processes import Process
from tests.e2e.line import new_key


class Member(Process):
    """A process of a cluster."""

    def end_well(self) -> None:
        """As an orchestrator ends it; asserts that it ends well."""
        assert self.stop() == 0, self.log


class Cluster:
    """Starts the processes; `flags` go to all of them."""

    def __init__(self, folder: Path, key: dict[str, str], *flags: object) -> None:
        self._folder, self._key, self._flags = folder, key, flags
        self._all: list[Member] = []
        self.url = ""

    def api(self) -> Member:
        found = self._start("serve", "--port", 0, "--workers-inside", 0)
        self.url = found.address
        return found

    def worker(self) -> Member:
        return self._start("worker", "--metrics-port", 0)

    def _start(self, name: str, *arguments: object) -> Member:
        log = self._folder / f"{name}-{len(self._all)}.log"
        found = Member(log, name, *arguments, *self._flags)
        found.start()
        self._all.append(found)
        return found

    def post(self, data: bytes, wait_s: int = 0, **query: str) -> httpx.Response:
        headers = {**self._key, "Content-Type": "image/png", "Prefer": f"wait={wait_s}"}
        address = f"{self.url}/v1/inspections"
        return httpx.post(address, content=data, params=query, headers=headers, timeout=90)

    def end(self) -> None:
        for process in self._all:
            if process.runs:
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
