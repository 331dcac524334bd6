"""What becomes of an accepted image: deadlines, cancellation, priorities, attempts, one end only."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from starlette.testclient import TestClient

from models.samplers import Cancelled
from service.access.principal import SYSTEM
from service.app import create_app
from service.blobs import DiskBlobs
from service.db.session import Database
from service.db.tables import InspectionRow
from service.ledger import Ledger
from service.metadata import Metadata
from service.metrics import Metrics
from service.queue.base import Depth
from service.queue.memory import MemoryQueue
from service.runtime import Runtime, open_runtime, open_store
from service.settings import Settings
from service.worker import Worker
from tests.service.conftest import PixelEngine, flat
from tests.service.test_pipeline import finished

PNG = {"Content-Type": "image/png"}
WAIT = {**PNG, "Prefer": "wait=30"}


class Stoppable(PixelEngine):
    """While it is held it stops as a chain does: without an answer."""

    def run(self, *arguments: Any, **options: Any) -> list[Any]:
        should_stop = arguments[3] if len(arguments) > 3 else options.get("should_stop")
        while not self.go.wait(0.01):
            if should_stop is not None and should_stop():
                raise Cancelled("asked to stop")
        return super().run(*arguments, **options)


def column(settings: Settings, name: str) -> list[Any]:
    database = Database(settings.url)
    try:
        with database.read() as session:
            return list(session.scalars(text(f"SELECT {name} FROM inspections ORDER BY id")))
    finally:
        database.close()


@pytest.mark.promise(11)
def test_a_deadline_expires_while_the_engine_is_busy(
    client: TestClient, engine: PixelEngine, record_property: Callable[[str, object], None]
) -> None:
    engine.go.clear()
    client.post("/v1/inspections", content=flat(8), headers=PNG)
    started = time.monotonic()
    body = client.post("/v1/inspections?deadline_ms=400", content=flat(1), headers=WAIT).json()
    spent_s = time.monotonic() - started
    record_property("a deadline of 400 ms was told after", f"{1000 * spent_s:.0f} ms")
    assert (body["status"], body["verdict"], body["error"]["code"]) == ("expired", "EXPIRED", "deadline")
    assert 0.35 < spent_s < 1.4 + 1  # within 1 s; one more for a machine that does other things
    engine.go.set()
    time.sleep(0.3)
    assert client.get(body["links"]["self"]).json()["verdict"] == "EXPIRED"
    assert client.get("/v1/inspections?verdict=EXPIRED").json()["items"][0]["id"] == body["id"]


def test_a_recipes_latency_budget_is_a_deadline(client: TestClient, engine: PixelEngine) -> None:
    database = client.app.state.services.database
    with database.write() as session:
        session.execute(
            text(
                "INSERT INTO recipes (name, description, latency_budget_ms, audit_rate, reasons, revision,"
                " created_at, updated_at) VALUES ('quick', '', 300, 0, '[]', 1, :now, :now)"
            ),
            {"now": "2026-01-01 00:00:00.000000"},
        )
    client.portal.call(client.app.state.services.engines.refresh)
    engine.go.clear()
    body = client.post("/v1/inspections?recipe=quick", content=flat(1), headers=WAIT).json()
    assert body["verdict"] == "EXPIRED"
    engine.go.set()


def test_a_short_wait_is_no_deadline(client: TestClient, engine: PixelEngine) -> None:
    engine.go.clear()
    headers = {**PNG, "Prefer": "wait=1"}
    answer = client.post("/v1/inspections", content=flat(1), headers=headers)
    assert (answer.status_code, answer.json()["verdict"]) == (202, None)
    engine.go.set()
    assert finished(client, answer.json()["id"])["verdict"] == "PASS"


def test_cancel(client: TestClient, engine: PixelEngine) -> None:
    engine.go.clear()
    first = client.post("/v1/inspections", content=flat(1), headers=PNG).json()
    address = f"{first['links']['self']}/cancel"
    answer = client.post(address)
    body = answer.json()
    assert (answer.status_code, body["status"], body["verdict"]) == (200, "failed", "ERROR")
    assert body["error"]["code"] == "cancelled"
    assert client.post(address).json()["id"] == first["id"]
    engine.go.set()
    other = client.post("/v1/inspections", content=flat(2), headers=WAIT).json()
    refused = client.post(f"{other['links']['self']}/cancel")
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:inlier:problem:already-ended")
    assert client.get(first["links"]["self"]).json()["verdict"] == "ERROR"
    assert client.post("/v1/inspections/nope/cancel").status_code == 404


@pytest.mark.promise(11)
def test_a_cancelled_image_frees_the_engine(settings: Settings) -> None:
    engine = PixelEngine()
    with TestClient(create_app(settings, engine)) as client:
        engine.go.clear()  # it runs until it is told to stop, or `go`
        first = client.post("/v1/inspections", content=flat(1), headers=PNG).json()
        deadline = time.monotonic() + 20
        while column(settings, "status") != ["running"] and time.monotonic() < deadline:
            time.sleep(0.02)
        ran = len(engine.batches)
        client.post(f"{first['links']['self']}/cancel")
        while len(engine.batches) == ran and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(engine.batches) == ran + 1  # given up, although `go` is not set
        engine.go.set()


def test_backfill_waits_for_cameras(settings: Settings) -> None:
    engine = PixelEngine()
    single = settings.model_copy(update={"batch_size": 1})
    with TestClient(create_app(single, engine)) as client:
        engine.go.clear()
        for value in range(10, 20):
            client.post("/v1/inspections?priority=backfill", content=flat(value), headers=PNG)
        urgent = client.post("/v1/inspections", content=flat(99), headers=PNG).json()
        engine.go.set()
        finished(client, urgent["id"])
        order = [value for _, values in engine.batches for value in values]
    assert order.index(99) <= 4  # behind what had been taken already
    assert set(column(single, "priority")) == {"camera", "backfill"}


@pytest.mark.promise(6)
def test_a_poisonous_image_fails_alone_after_three_attempts(settings: Settings) -> None:
    engine = PixelEngine(poison=3)
    with TestClient(create_app(settings, engine)) as client:
        ids = [client.post("/v1/inspections", content=flat(v), headers=PNG).json()["id"] for v in (2, 3, 4)]
        bodies = [finished(client, identifier) for identifier in ids]
        dead = client.portal.call(client.app.state.services.runtime.queue.dead)
    assert [body["status"] for body in bodies] == ["done", "failed", "done"]
    assert bodies[1]["error"]["code"] == "engine-failed"
    assert column(settings, "attempts")[1] == 3
    assert list(dead) == [(ids[1], "engine-failed")]


@pytest.mark.promise(2)
def test_an_image_that_ends_its_workers_is_given_up(settings: Settings) -> None:
    engine = Stoppable()
    short = settings.model_copy(update={"shutdown_grace_s": 0.05})
    with TestClient(create_app(short, engine)) as client:
        engine.go.clear()
        body = client.post("/v1/inspections", content=flat(1), headers=PNG).json()
    database = Database(short.url)  # as three processes leave it that were killed while they ran it
    with database.write() as session:
        session.execute(text("UPDATE inspections SET status = 'running', attempts = 3, worker = 'gone'"))
    database.close()
    second = PixelEngine()
    with TestClient(create_app(short, second)) as client:
        ended = finished(client, body["id"])
    assert (ended["status"], ended["verdict"], ended["error"]["code"]) == (
        "failed", "ERROR", "too-many-attempts",
    )  # fmt: skip
    assert [1] not in [values for _, values in second.batches]


def test_a_stop_does_not_count_as_an_attempt(settings: Settings) -> None:
    engine = Stoppable()
    short = settings.model_copy(update={"shutdown_grace_s": 0.05})
    with TestClient(create_app(short, engine)) as client:
        engine.go.clear()
        client.post("/v1/inspections", content=flat(1), headers=PNG)
        for _ in range(100):
            if column(short, "attempts") == [1]:
                break
            time.sleep(0.02)
    assert (column(short, "status"), column(short, "attempts")) == (["queued"], [0])


def test_columns_for_people(client: TestClient, settings: Settings) -> None:
    for value in (1, 5, 40):
        client.post("/v1/inspections", content=flat(value), headers=WAIT)
    assert column(settings, "wanted")[1:] == [True, False]
    assert column(settings, "margin")[1] == pytest.approx(0.0, abs=3)
    assert column(settings, "brightness") == pytest.approx([1 / 255, 5 / 255, 40 / 255], rel=1e-3)
    assert column(settings, "sharpness") == pytest.approx([0, 0, 0], abs=1e-9)
    assert all(size > 0 for size in column(settings, "image_bytes"))


async def _open(stack: AsyncExitStack, settings: Settings, engine: PixelEngine) -> Runtime:
    ledger = await open_store(settings, stack)
    return await open_runtime(settings, Metrics(), stack, ledger, engine, runs=True)


@pytest.mark.promise(3)
def test_an_image_that_runs_twice_has_one_end(settings: Settings) -> None:
    """Two workers are given the same id at once, as after a flush of Redis."""
    engine = PixelEngine()
    heard: list[str] = []

    async def run() -> InspectionRow:
        async with AsyncExitStack() as stack:
            one = await _open(stack, settings, engine)
            one.bell.listen(heard.append)
            queue = MemoryQueue(30)
            runner = one.worker._runner
            other = Worker(queue, one.bell, one.ledger, runner, one.ending, one.scorer, Metrics(), settings)

            async def read() -> tuple[bytes, Metadata]:
                return flat(9), Metadata()

            engine.go.clear()
            accepted = await one.acceptor.accept(read, SYSTEM)
            await queue.put(accepted.row.id)
            other.start()
            while (await asyncio.to_thread(one.ledger.get, accepted.row.id)).attempts < 2:
                await asyncio.sleep(0.02)
            engine.go.set()
            await one.acceptor.wait(accepted.row.id, 20)
            while (await queue.depth()) != Depth(0, 0, 0.0):
                await asyncio.sleep(0.02)
            await other.stop(time.monotonic() + 5, drain=True)
            await other.end()
            return await asyncio.to_thread(one.ledger.get, accepted.row.id)

    row = asyncio.run(run())
    assert (row.status, row.score_raw, row.attempts) == ("done", 9, 2)


@pytest.mark.promise(2)
@pytest.mark.promise(8)
def test_a_lost_job_is_queued_again(settings: Settings) -> None:
    assert _lost_by_the_queue(settings.model_copy(update={"sweep_s": 0.1}), 20) == "done"


@pytest.mark.promise(8, control=True)
def test_without_a_sweeper_a_lost_job_stays_lost(settings: Settings) -> None:
    assert _lost_by_the_queue(settings.model_copy(update={"sweep_s": 600}), 1) == "queued"


def _lost_by_the_queue(settings: Settings, patience_s: float) -> str:
    """The status of an image whose id the queue lost."""

    async def run() -> str:
        async with AsyncExitStack() as stack:
            one = await _open(stack, settings, PixelEngine())

            async def lost(*_: object) -> bool:
                return True

            kept, one.queue.put = one.queue.put, lost  # type: ignore[method-assign]

            async def read() -> tuple[bytes, Metadata]:
                return flat(9), Metadata()

            accepted = await one.acceptor.accept(read, SYSTEM)
            await one.acceptor.wait(accepted.row.id, 0.5)
            assert (await asyncio.to_thread(one.ledger.get, accepted.row.id)).status == "queued"
            one.queue.put = kept  # type: ignore[method-assign]
            await one.acceptor.wait(accepted.row.id, patience_s)
            return (await asyncio.to_thread(one.ledger.get, accepted.row.id)).status

    return asyncio.run(run())


@pytest.mark.promise(2)
def test_a_result_that_could_not_be_stored_is_made_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.ending._RETRIES_S", ())
    status, runs = _refused_once(settings, early=False, patience_s=20)
    assert (status, runs) == ("done", 2)


@pytest.mark.promise(2, control=True)
def test_acknowledging_before_the_commit_would_be_noticed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.ending._RETRIES_S", ())
    status, runs = _refused_once(settings, early=True, patience_s=2)
    assert (status, runs) == ("queued", 1)


def _refused_once(settings: Settings, *, early: bool, patience_s: float) -> tuple[str, int]:
    """Status and runs of an image whose first result is refused, when there was time for another.

    `early`: it is acknowledged when it is taken.
    """
    engine = PixelEngine()
    alone = settings.model_copy(update={"sweep_s": 600, "lease_s": 0.5})  # no sweeper makes good for it

    async def run() -> str:
        async with AsyncExitStack() as stack:
            one = await _open(stack, alone, engine)
            take, finish = one.queue.take, one.ledger.finish
            refusals = [OperationalError("UPDATE", {}, Exception("away"))]

            async def take_and_acknowledge(*arguments: Any) -> Any:
                leases = await take(*arguments)
                for lease in leases:
                    await one.queue.done(lease)
                return leases

            def refuse_once(*arguments: Any) -> Any:
                if refusals:
                    raise refusals.pop()
                return finish(*arguments)

            one.ledger.finish = refuse_once  # type: ignore[method-assign]
            if early:
                one.queue.take = take_and_acknowledge  # type: ignore[method-assign]

            async def read() -> tuple[bytes, Metadata]:
                return flat(9), Metadata()

            accepted = await one.acceptor.accept(read, SYSTEM)
            while refusals:
                await asyncio.sleep(0.02)
            await one.acceptor.wait(accepted.row.id, patience_s)
            return (await asyncio.to_thread(one.ledger.get, accepted.row.id)).status

    return asyncio.run(run()), len([values for _, values in engine.batches if 9 in values])


def test_one_sweeper_at_a_time(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'x.sqlite3'}")
    database.migrate()
    ledger = Ledger(database, DiskBlobs(tmp_path / "blobs"))
    assert ledger.lease("sweeper", "a", 60)
    assert not ledger.lease("sweeper", "b", 60)
    assert ledger.lease("sweeper", "a", 0.3)
    time.sleep(0.4)
    assert ledger.lease("sweeper", "b", 60)
    assert not ledger.lease("sweeper", "a", 10)
    ledger.end_lease("sweeper", "b")
    assert ledger.lease("sweeper", "a", 10)
    database.close()


@pytest.mark.promise(7)
def test_a_job_of_three_leases_is_not_taken_from_a_live_worker(settings: Settings) -> None:
    patient, engine = settings.model_copy(update={"lease_s": 2.0}), PixelEngine()
    with TestClient(create_app(patient, engine)) as client:
        engine.delay_s = 6.0  # now that it is warm
        body = client.post("/v1/inspections", content=flat(9), headers=WAIT).json()
    assert (body["status"], column(patient, "attempts")) == ("done", [1])
