"""SIGTERM to separate workers and to the API, under load: others go on, nothing fails, nothing runs twice."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from models.bundle import Bundle
from tests.conftest import part
from tests.e2e.cluster import Cluster, cluster
from tests.e2e.test_workers import Table, database_url, ended
from tests.long import LONG
from tests.service.conftest import png, postgres
from tests.service.queue.conftest import PrivateRedis, redis_server

__all__ = ["database_url", "postgres", "redis_server"]  # fixtures
GRACE_S = 30
TIMES = 10 if LONG else 2


class Load:
    """Clients in a closed loop until `stop`; notes what they were told, and what broke before."""

    def __init__(self, running: Cluster, clients: int = 3) -> None:
        self.accepted: list[str] = []
        self.broken: list[str] = []
        self._running, self._stopping = running, threading.Event()
        self._threads = [threading.Thread(target=self._post, args=(client,)) for client in range(clients)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stopping(self) -> None:
        """From now on a refused connection is no surprise."""
        self._stopping.set()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _post(self, client: int) -> None:
        number = 0
        while True:
            number += 1
            try:
                answer = self._running.post(png(part(100 * client + number % 50)))
            except httpx.TransportError as error:
                if not self._stopping.is_set():
                    self.broken.append(repr(error))
                return
            if answer.status_code in (429, 503):
                time.sleep(float(answer.headers["retry-after"]))
            elif answer.status_code in (200, 202):
                self.accepted.append(answer.json()["id"])
            else:
                self.broken.append(answer.text)
            time.sleep(0.05)


@pytest.mark.promise(13)
@pytest.mark.slow
@pytest.mark.timeout(1500 if LONG else 300)
def test_workers_and_the_api_end_well_under_load(
    tiny_bundle: Bundle,
    tmp_path: Path,
    database_url: str,
    redis_server: PrivateRedis,
    record_property: Callable[[str, object], None],
) -> None:
    flags = ("--profile", "paper", "--batch-size", 4, "--shutdown-grace-s", GRACE_S)
    with cluster(tmp_path, tiny_bundle.path, database_url, redis_server.url, *flags) as running:
        api = running.api()
        workers = [running.worker(), running.worker()]
        table, load, spent_s = Table(database_url), Load(running), list[float]()
        load.start()
        for number in range(TIMES):
            going = workers.pop(0)
            pid, least = f"-{going.pid}-", len(load.accepted) + 10
            table.wait(
                lambda rows, pid=pid, least=least: len(rows) >= least
                and any(pid in (row.worker or "") and row.status == "running" for row in rows),
                60, "the worker has nothing in hand",
            )  # fmt: skip
            asked = time.monotonic()
            going.end_well()
            spent_s.append(time.monotonic() - asked)
            if number < TIMES - 1:
                workers.append(running.worker())
        load.stopping()
        api.end_well()
        load.join()
        rows = table.wait(ended, 120, "not all have ended")
        workers[0].end_well()
        table.close()
    record_property("workers ended by SIGTERM", TIMES)
    record_property("accepted by the API meanwhile", len(rows))
    record_property("longest end of a worker", f"{max(spent_s):.1f} s")
    assert load.broken == []
    assert sorted(row.id for row in rows) == sorted(load.accepted)
    assert Counter(row.status for row in rows) == {"done": len(rows)}
    assert {row.attempts for row in rows} == {1}  # what was given back was not begun
    assert max(spent_s) < GRACE_S
