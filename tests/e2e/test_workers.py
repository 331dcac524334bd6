"""Separate workers on Redis and PostgreSQL: what is accepted ends, whoever dies on the way."""

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import httpx
import pytest
from sqlalchemy import create_engine, text

from models.bundle import Bundle
from service.queue.streams import connect
from tests.conftest import part
from tests.e2e.cluster import Cluster, cluster
from tests.service.conftest import png, postgres
from tests.service.postgres import private_postgres
from tests.service.queue.conftest import PrivateRedis, redis_server

__all__ = ["postgres", "redis_server"]  # fixtures
TILES = "INLIER_TILES"  # a folder in MVTec layout: its test images are posted instead of generated ones
TILES_BUNDLE = "INLIER_TILES_BUNDLE"
LEASE_S = 3


@pytest.fixture
def database_url(postgres) -> Iterator[str]:
    with postgres.database() as url:
        yield url


def images() -> list[bytes]:
    if folder := os.environ.get(TILES):
        found = sorted((Path(folder) / "test").rglob("*.png")) + sorted(
            (Path(folder) / "test").rglob("*.jpg")
        )
        return [path.read_bytes() for path in found]
    return [png(part(index)) for index in range(80)]


class Table:
    """What the database says, looked at from outside."""

    def __init__(self, url: str) -> None:
        self._engine = create_engine(url)

    def rows(self) -> list:
        query = text("SELECT id, status, verdict, attempts, worker, model_hash, finished_at FROM inspections")
        with self._engine.connect() as connection:
            return list(connection.execute(query))

    def wait(self, condition, seconds: float, what: str) -> list:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if condition(rows := self.rows()):
                return rows
            time.sleep(0.1)
        raise AssertionError(f"{what}: {Counter(row.status for row in self.rows())}")

    def close(self) -> None:
        self._engine.dispose()


def ended(rows: Sequence) -> bool:
    return all(row.status not in ("queued", "running") for row in rows)


def post_all(running: Cluster, data: Sequence[bytes], accepted: list[str]) -> list[threading.Thread]:
    def post(mine: Sequence[bytes]) -> None:
        for image in mine:
            while (answer := running.post(image)).status_code in (429, 503):
                time.sleep(float(answer.headers["retry-after"]))
            assert answer.status_code in (200, 202), answer.text
            accepted.append(answer.json()["id"])

    threads = [threading.Thread(target=post, args=(data[first::4],)) for first in range(4)]
    for thread in threads:
        thread.start()
    return threads


@pytest.mark.promise(2)
@pytest.mark.promise(7)
@pytest.mark.timeout(600)
def test_a_worker_is_killed_and_every_image_is_accounted_for(
    tiny_bundle: Bundle,
    tmp_path: Path,
    database_url: str,
    redis_server: PrivateRedis,
    record_property: Callable[[str, object], None],
) -> None:
    data, accepted = images(), list[str]()
    bundle = Path(os.environ.get(TILES_BUNDLE, tiny_bundle.path))
    flags = ["--lease-s", LEASE_S, "--batch-size", 2]
    if TILES_BUNDLE not in os.environ:
        flags += ["--profile", "paper"]
    with cluster(tmp_path, bundle, database_url, redis_server.url, *flags) as running:
        api = running.api()
        first, second = running.worker(), running.worker()
        table = Table(database_url)
        started = time.monotonic()
        threads = post_all(running, data, accepted)
        # Both are in the middle of it: each has finished some, and the first one holds more.
        pid = f"-{first.pid}-"
        held = table.wait(
            lambda rows: any(pid in (r.worker or "") and r.status == "running" for r in rows)
            and sum(r.status == "done" for r in rows) >= min(10, len(data) // 4),
            120, "the first worker has nothing",
        )  # fmt: skip
        first.kill()
        killed_at = time.monotonic()
        lost = {row.id for row in held if pid in (row.worker or "") and row.status == "running"}
        for thread in threads:
            thread.join()
        rows = table.wait(lambda rows: len(rows) == len(data) and ended(rows), 400, "not all have ended")
        spent_s = time.monotonic() - started
        record_property("posted", len(data))
        record_property("rows", len(rows))
        assert sorted(row.id for row in rows) == sorted(accepted)
        assert len(set(accepted)) == len(data)
        assert {row.status for row in rows} == {"done"}
        assert {row.verdict for row in rows} <= {"PASS", "REVIEW", "REJECT"}
        assert len({row.model_hash for row in rows}) == 1
        again = {row.id for row in rows if row.attempts > 1}
        assert all(f"-{second.pid}-" in row.worker for row in rows if row.id in again)
        assert again <= lost | {row.id for row in rows}
        metrics = httpx.get(f"{second.address}/metrics").text
        assert "inlier_inspections_total" in metrics
        assert httpx.get(f"{second.address}/healthz/ready").status_code == 200
        assert httpx.get(f"{api.address}/healthz/ready").status_code == 200
        by = Counter("killed" if pid in row.worker else "survivor" for row in rows)
        print(f"\n{len(data)} images posted, {len(rows)} rows, all done, none missing, {spent_s:.0f} s")
        print(f"worker killed after {killed_at - started:.0f} s with {len(lost)}; {len(again)} ran again")
        print(f"results {dict(by)}, verdicts {dict(Counter(row.verdict for row in rows))}")
        second.end_well()
        api.end_well()
        table.close()


@pytest.mark.promise(8)
@pytest.mark.timeout(300)
def test_redis_is_flushed_and_goes_away_and_nothing_is_lost(
    tiny_bundle: Bundle, tmp_path: Path, database_url: str, redis_server: PrivateRedis
) -> None:
    data = images()[:24]
    with cluster(tmp_path, tiny_bundle.path, database_url, redis_server.url, "--lease-s", LEASE_S) as running:
        api = running.api()
        table = Table(database_url)
        ids = [running.post(image).json()["id"] for image in data[:8]]  # nobody runs them yet
        client = connect(redis_server.url, 1)
        import asyncio

        async def flush() -> None:
            await client.flushall()
            await client.aclose()

        asyncio.run(flush())
        redis_server.stop()
        try:
            answers = [running.post(image) for image in data[8:16]]
            assert {answer.status_code for answer in answers} == {202}
            assert httpx.get(f"{api.address}/healthz/ready").status_code == 200
            worker = running.worker()  # starts without Redis, too
        finally:
            redis_server.start()
        back_at = time.monotonic()
        answers += [running.post(image) for image in data[16:]]
        rows = table.wait(lambda rows: len(rows) == 24 and ended(rows), 60, "not taken up again")
        assert time.monotonic() - back_at < 60
        assert {row.status for row in rows} == {"done"}
        assert {row.id for row in rows} == {*ids, *(answer.json()["id"] for answer in answers)}
        # A result is heard of in the API's process: the answer waits for another's work.
        told = running.post(data[0], wait_s=60)
        assert (told.status_code, told.json()["status"]) == (200, "done")
        worker.end_well()
        api.end_well()
        table.close()


@pytest.mark.promise(9)
@pytest.mark.timeout(300)
def test_the_database_goes_away_and_nothing_is_half_accepted(
    tiny_bundle: Bundle, tmp_path: Path, redis_server: PrivateRedis
) -> None:
    data = images()[:12]
    with private_postgres() as server:
        url = server.url
        with cluster(tmp_path, tiny_bundle.path, url, redis_server.url, "--lease-s", LEASE_S) as running:
            api, worker = running.api(), running.worker()
            ids = [running.post(image).json()["id"] for image in data[:6]]
            server.stop()
            try:
                refused = [running.post(image) for image in data[6:9]]
                assert {answer.status_code for answer in refused} == {503}
                assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
                assert httpx.get(f"{api.address}/healthz/ready").status_code == 503
                assert httpx.get(f"{worker.address}/healthz/ready").status_code == 503
                assert httpx.get(f"{api.address}/healthz/live").status_code == 200
            finally:
                server.start()
            last = [running.post(image, wait_s=60) for image in data[9:]]
            assert {answer.status_code for answer in last} == {200}
            table = Table(url)
            rows = table.wait(lambda rows: ended(rows), 60, "not all have ended")
            assert {row.status for row in rows} == {"done"}
            assert {row.id for row in rows} == {*ids, *(answer.json()["id"] for answer in last)}
            table.close()
            worker.end_well()
            api.end_well()
