"""Places in the queue: bounds by count, by predicted wait and by key, before a body is read."""

import errno
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from models.bundle import Bundle
from service.access.principal import SYSTEM, Principal
from service.admission import Admission, ServiceRate
from service.app import create_app
from service.blobs import DiskBlobs
from service.db.session import Database
from service.errors import InspectionError
from service.ledger import Ledger
from service.metrics import Metrics
from service.queue.memory import MemoryBell
from service.settings import Settings
from tests.service.conftest import PixelEngine, flat
from tests.service.test_server import post, server

PNG = {"Content-Type": "image/png"}
CAMERA = Principal("cam1", "camera", "key")
OTHER = Principal("cam2", "camera", "key")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    database = Database(f"sqlite:///{tmp_path / 'x.sqlite3'}")
    database.migrate()
    yield Ledger(database, DiskBlobs(tmp_path / "blobs"))
    database.close()


def admission(ledger: Ledger, **values: Any) -> Admission:
    return Admission(ledger, MemoryBell(), Settings(**values), Metrics())


def accept(rooms: Admission, who: Principal, count: int, first: int = 0) -> list[str]:
    names = [f"{who.name}-{number}" for number in range(first, first + count)]
    for name in names:
        with rooms.place(who) as place:
            place.keep(name)
    return names


def test_the_rate_is_that_of_busy_time() -> None:
    now = [0.0]
    rate = ServiceRate(lambda: now[0])
    assert (rate.measured, rate.image_s) == (False, 1.0)
    for _ in range(20):  # one image a minute, each of which takes 2 s
        rate.busy()
        now[0] += 2
        rate.ended(0)
        now[0] += 58
    assert rate.measured
    assert rate.image_s == pytest.approx(2)
    rate.busy()
    for left in range(63, -1, -1):  # 4 a second at a backlog, by four workers
        now[0] += 0.25
        rate.ended(left)
    assert rate.image_s == pytest.approx(0.25)


@pytest.mark.promise(10)
def test_a_key_has_its_share_and_the_service_its_bound(ledger: Ledger) -> None:
    rooms = admission(ledger, queue_size=8, queue_share=0.5)
    names = accept(rooms, CAMERA, 4)
    with pytest.raises(InspectionError) as beyond:
        accept(rooms, CAMERA, 1)
    assert (beyond.value.status, beyond.value.code) == (429, "key-share")
    assert beyond.value.retry_after_s > 0
    accept(rooms, OTHER, 3)
    accept(rooms, SYSTEM, 1)  # people and the service itself have no share
    with pytest.raises(InspectionError) as full:
        accept(rooms, SYSTEM, 1, first=1)
    assert (full.value.status, full.value.code) == (503, "queue-full")
    rooms._heard(names[0])
    accept(rooms, CAMERA, 1, first=9)
    assert rooms.depth == 8


def test_a_place_that_is_not_kept_is_given_back(ledger: Ledger) -> None:
    rooms = admission(ledger, queue_size=1)
    for _ in range(3):
        with rooms.place(CAMERA):
            assert rooms.depth == 1
            with pytest.raises(InspectionError):
                rooms.check(OTHER)
    assert rooms.depth == 0


def test_the_predicted_wait_is_a_bound(ledger: Ledger) -> None:
    now = [0.0]
    rooms = admission(ledger, queue_size=1000, max_queue_s=10)
    rooms._rate = ServiceRate(lambda: now[0])
    for name in accept(rooms, SYSTEM, 40):
        now[0] += 0.5
        rooms._heard(name)
    accept(rooms, SYSTEM, 21)
    with pytest.raises(InspectionError) as slow:
        accept(rooms, SYSTEM, 1, first=99)
    assert (slow.value.status, slow.value.code) == (503, "queue-too-slow")
    assert rooms.expected_wait_s() == pytest.approx(10.5)


def test_what_the_bell_did_not_say_is_found_in_the_database(ledger: Ledger) -> None:
    rooms = admission(ledger, queue_size=10)
    accept(rooms, CAMERA, 3)
    time.sleep(0.01)
    rooms._compare({"cam1-0", "of another process"}, time.monotonic())
    assert rooms.depth == 2
    rooms._heard("of another process")
    assert rooms.depth == 1


@pytest.mark.promise(9)
def test_a_full_disk_is_507_and_nothing_is_accepted(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    with TestClient(create_app(settings, PixelEngine())) as client:
        with monkeypatch.context() as patch:
            patch.setattr(DiskBlobs, "stage", full)
            answer = client.post("/v1/inspections", content=flat(9), headers=PNG)
        assert (answer.status_code, answer.json()["type"]) == (507, "urn:inlier:problem:storage-full")
        assert int(answer.headers["retry-after"]) >= 1
        assert client.get("/v1/inspections").json()["items"] == []
        assert "inlier_queue_depth 0.0" in client.get("/metrics").text


@pytest.mark.promise(10)
@pytest.mark.promise(17)
@pytest.mark.timeout(120)
def test_refused_before_the_body_is_read_and_slow_clients_end(bundle: Bundle, tmp_path: Path) -> None:
    flags = ("--queue-size", "1", "--body-timeout-s", "6")
    head = b"POST /v1/inspections HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
    head += b"Content-Length: 500000\r\n\r\n"
    with server(bundle, tmp_path / "data", *flags) as (_, url):
        host, port = url.removeprefix("http://").split(":")
        assert post(url, 1, Prefer="wait=20").status_code == 200
        with socket.create_connection((host, int(port)), timeout=30) as slow:
            slow.sendall(head + b"\x89PNG")  # holds the only place, and sends no more
            while "inlier_queue_depth 1.0" not in httpx.get(f"{url}/metrics").text:
                time.sleep(0.02)
            spent = []
            for _ in range(10):
                with socket.create_connection((host, int(port)), timeout=30) as refused:
                    started = time.monotonic()
                    refused.sendall(head)
                    answer = b""
                    while b"queue-full" not in answer and (more := refused.recv(65536)):
                        answer += more
                    spent.append(time.monotonic() - started)
                assert answer.startswith(b"HTTP/1.1 503 ")
                assert b"queue-full" in answer
                assert b"retry-after" in answer.lower()
            assert sorted(spent)[5] < 0.5
            assert slow.recv(65536).startswith(b"HTTP/1.1 408 ")
        assert post(url, 2, Prefer="wait=20").status_code == 200
