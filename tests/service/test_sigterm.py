"""SIGTERM under load, again and again: who was told that an image is accepted is not let down."""

import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from models.bundle import Bundle
from service.db.session import Database
from service.settings import Settings
from tests.long import LONG
from tests.service.test_server import post, server

GRACE_S = 30
TIMES = 20 if LONG else 2


@dataclass(frozen=True)
class Ended:
    """What was left of a server that was asked to stop while clients posted."""

    status: int | None  # None: it had to be killed
    spent_s: float
    accepted: list[str]  # what clients were told
    broken: int  # connections that broke before it was asked
    rows: dict[str, str]  # id -> status

    def problems(self) -> list[str]:
        """What a caller or an orchestrator could complain about."""
        told, kept = set(self.accepted), set(self.rows)
        unfinished = sum(status != "done" for status in self.rows.values())
        found = {
            f"it ended with status {self.status}": self.status != 0,
            f"it took {self.spent_s:.1f} s": self.spent_s > GRACE_S,
            f"{self.broken} connections broke while it ran": self.broken,
            f"{len(told - kept)} accepted images have no row": told - kept,
            f"{len(kept - told)} images were stored, and nobody was told": kept - told,
            f"{unfinished} images are not done": unfinished,
        }
        return [problem for problem, there in found.items() if there]


def stopped_under_load(
    bundle: Bundle,
    data: Path,
    after_s: float,
    *,
    waiting: int,
    module: str = "service.cli",
    delay_ms: int = 400,
) -> Ended:
    """Four clients, `waiting` of whom wait for results; SIGTERM once images are accepted and time is over."""
    accepted: list[str] = []
    broken: list[int] = []
    stopping = threading.Event()

    def load(worker: int) -> None:
        for number in range(10_000):
            try:
                answer = post(url, 100 * worker + number % 50, Prefer=f"wait={20 * (worker < waiting)}")
            except httpx.TransportError:
                if not stopping.is_set():
                    broken.append(worker)
                return
            if answer.status_code in (200, 202):
                accepted.append(answer.json()["id"])

    # Images wait for others to share a batch, so some always are on their way.
    flags = ("--batching", "static", "--batch-size", "64", "--batch-delay-ms", str(delay_ms))
    flags += ("--shutdown-grace-s", str(GRACE_S))
    with server(bundle, data, *flags, module=module) as (process, url):
        threads = [threading.Thread(target=load, args=(worker,)) for worker in range(4)]
        for thread in threads:
            thread.start()
        due, latest = time.monotonic() + after_s, time.monotonic() + 60
        while (len(accepted) < 6 or time.monotonic() < due) and not broken and time.monotonic() < latest:
            time.sleep(0.01)
        stopping.set()
        asked = time.monotonic()
        process.send_signal(signal.SIGTERM)
        try:
            status = process.wait(GRACE_S + 10)
        except subprocess.TimeoutExpired:
            status = None
            process.kill()
        spent_s = time.monotonic() - asked
        for thread in threads:
            thread.join()
    return Ended(status, spent_s, accepted, len(broken), rows_of(data))


def rows_of(data: Path) -> dict[str, str]:
    database = Database(Settings(data=data).url)
    try:
        with database.engine.connect() as connection:
            found = connection.exec_driver_sql("SELECT id, status FROM inspections")
            return {row.id: row.status for row in found}
    finally:
        database.close()


@pytest.mark.promise(13)
@pytest.mark.timeout(1200 if LONG else 120)
def test_sigterm_under_load_loses_nothing(
    bundle: Bundle, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    moments = random.Random(13)
    ended = [
        stopped_under_load(
            bundle, tmp_path / f"data{number}", moments.uniform(0.1, 1.5), waiting=2 * (number % 2)
        )
        for number in range(TIMES)
    ]
    record_property("times SIGTERM", TIMES)
    record_property("accepted before it", sum(len(one.accepted) for one in ended))
    record_property("longest end", f"{max(one.spent_s for one in ended):.1f} s")
    assert [problem for one in ended for problem in one.problems()] == []
    assert all(len(one.accepted) > 5 for one in ended)


@pytest.mark.promise(13, control=True)
@pytest.mark.timeout(120)
def test_a_server_that_drops_what_it_has_accepted_is_noticed(bundle: Bundle, tmp_path: Path) -> None:
    hasty = "tests.service.hasty_server"
    ended = stopped_under_load(bundle, tmp_path / "data", 0.5, waiting=0, module=hasty, delay_ms=5000)
    assert any("not done" in problem for problem in ended.problems()), ended
