"""The Python client against the real service, and against one that misbehaves."""

import asyncio
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
import pytest

from deploy.processes import free_port
from service.client import AsyncClient, Client, Problem, Unavailable, content_key, verify_webhook
from service.outbox.message import new_secret, sign
from service.settings import Settings
from tests.service.conftest import PixelEngine, flat
from tests.service.live import live
from tests.service.receiver import HANG_UP, Receiver


@pytest.fixture
def url(settings: Settings, engine: PixelEngine) -> Iterator[str]:
    with live(settings, engine) as address:
        yield address


def test_posting_twice_gives_one_inspection(url: str, tmp_path: Path) -> None:
    with Client(url) as client:
        first = client.inspect(flat(2), wait_s=10, serial="S1", attributes={"tool": 7})
        again = client.inspect(flat(2), wait_s=10, serial="S1", attributes={"tool": 7})
        other = client.inspect(flat(2), wait_s=10, serial="S2", attributes={"tool": 7})
        own_key = client.inspect(flat(2), wait_s=10, serial="S1", idempotency_key="mine")
    assert (first.id, first.replayed) == (again.id, False)
    assert again.replayed
    assert len({first.id, other.id, own_key.id}) == 3
    assert (first.verdict, first.score_raw, first.serial) == ("PASS", 2.0, "S1")
    assert first.document["attributes"] == {"tool": 7}
    assert first.page == f"{url}/inspections/{first.id}"


def test_files_times_and_results(url: str, tmp_path: Path) -> None:
    image = tmp_path / "part.png"
    image.write_bytes(flat(9))
    at = datetime(2026, 1, 2, tzinfo=UTC)
    with Client(url) as client:
        posted = client.inspect(image, captured_at=at, recipe="bolt")
        found = client.result(posted.id, timeout_s=20)
        assert found.finished
        assert found.verdict == "REJECT"
        assert found.regions
        assert found.recipe == "bolt"
        assert found.document["captured_at"] == "2026-01-02T00:00:00Z"
        assert client.get(posted.id) == found


def test_lists_page_by_page(url: str) -> None:
    with Client(url) as client:
        ids = [client.inspect(flat(value), lot="L1").id for value in range(7)]
        client.inspect(flat(1), lot="L2")
        assert [one.id for one in client.inspections(lot="L1", limit=3)] == ids[::-1]


def test_pictures(url: str) -> None:
    with Client(url) as client:
        part = client.inspect(flat(9), wait_s=60)
        assert client.picture(part, "image") == flat(9)
        raw = cv2.imdecode(
            np.frombuffer(client.picture(part, "heatmap", format="raw"), np.uint8), cv2.IMREAD_UNCHANGED
        )
        assert raw.dtype == np.uint16
        assert client.picture(part, "heatmap") != client.picture(part, "reconstruction")
        failed = client.inspect(flat(254), wait_s=60)
        with pytest.raises(Problem, match="404 no-picture"):
            client.picture(failed, "heatmap")


def test_reviews_are_told_from_outdated_ones(url: str) -> None:
    with Client(url) as client:
        part = client.inspect(flat(9), wait_s=60)
        assert part.verdict == "REJECT"
        said = client.review(part, "good", comment="dust")
        assert (said["state"], said["revision"], said["disagreement"]) == ("good", 1, True)
        with pytest.raises(Problem, match="409") as caught:
            client.review(part, "defective")  # based on what was there before the first review
        assert caught.value.code
        seen = client.get(part.id)
        assert seen.document["review"]["state"] == "good"
        assert client.review(seen, "withdrawn")["state"] == "none"
        with pytest.raises(Problem, match="422"):
            client.review(client.get(part.id), "perhaps")  # type: ignore[arg-type]


def test_problems_are_typed(url: str) -> None:
    with Client(url) as client:
        with pytest.raises(Problem) as caught:
            client.inspect(b"no image")
        assert caught.value.status == 415
        assert caught.value.code
        assert caught.value.request_id
        with pytest.raises(Problem, match="404 unknown-inspection"):
            client.get("00000000-0000-7000-8000-000000000000")
        client.inspect(flat(1), idempotency_key="k")
        with pytest.raises(Problem, match="409 idempotency-conflict"):
            client.inspect(flat(2), idempotency_key="k")


def test_async_client(url: str) -> None:
    async def work() -> None:
        async with AsyncClient(url) as client:
            posted = await asyncio.gather(*(client.inspect(flat(v), wait_s=10) for v in range(1, 6)))
            assert [one.score_raw for one in posted] == [1, 2, 3, 4, 5]
            assert await client.get(posted[0].id)
            assert {one.id async for one in client.inspections(limit=2)} == {one.id for one in posted}

    asyncio.run(work())


def document(url: str) -> bytes:
    with Client(url) as client:
        return json.dumps(client.inspect(flat(1), wait_s=10).document).encode()


def test_failures_are_tried_again_with_the_same_key(url: str, receiver: Receiver) -> None:
    receiver.status, receiver.answer_body = 200, document(url)
    receiver.answers = [503, HANG_UP, 429, 507]
    with Client(f"http://127.0.0.1:{receiver.port}", key="inl_x", retry_for_s=30) as client:
        assert client.inspect(flat(1)).finished
    assert len(receiver.received) == 5
    assert len({one.headers["idempotency-key"] for one in receiver.received}) == 1
    assert {one.headers["authorization"] for one in receiver.received} == {"Bearer inl_x"}


def test_retry_after_is_honoured_and_the_time_is_bounded(url: str, receiver: Receiver) -> None:
    receiver.status, receiver.answer_body, receiver.headers = 200, document(url), {"Retry-After": "1"}
    receiver.answers = [429]
    address = f"http://127.0.0.1:{receiver.port}"
    started = time.monotonic()
    with Client(address, retry_for_s=30) as client:
        client.inspect(flat(1))
    assert time.monotonic() - started >= 1
    receiver.answers, receiver.headers = [429], {"Retry-After": "60"}
    with Client(address, retry_for_s=2) as client, pytest.raises(Unavailable, match="429"):
        client.inspect(flat(1))


def test_other_errors_are_not_tried_again(receiver: Receiver) -> None:
    receiver.status = 500
    with Client(f"http://127.0.0.1:{receiver.port}") as client, pytest.raises(Problem, match="500"):
        client.inspect(flat(1))
    assert len(receiver.received) == 1


def test_a_service_that_is_away_is_waited_for(settings: Settings, engine: PixelEngine) -> None:
    import threading

    port = free_port()
    with Client(f"http://127.0.0.1:{port}", retry_for_s=0.3) as client, pytest.raises(Unavailable):
        client.inspect(flat(1))
    found: list[str] = []

    def post() -> None:
        with Client(f"http://127.0.0.1:{port}", retry_for_s=30) as client:
            found.append(client.inspect(flat(1)).id)

    thread = threading.Thread(target=post)
    thread.start()
    time.sleep(0.3)
    with live(settings, engine, port):
        thread.join(30)
    assert len(found) == 1


def test_address_and_key_come_from_the_environment(
    receiver: Receiver, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.status, receiver.answer_body = 200, document(url)
    monkeypatch.setenv("INLIER_URL", f"http://127.0.0.1:{receiver.port}/")
    monkeypatch.setenv("INLIER_KEY", "inl_env")
    with Client() as client:
        client.inspect(flat(1))
    assert receiver.received[0].headers["authorization"] == "Bearer inl_env"
    assert receiver.received[0].path == "/v1/inspections"


def test_content_key_depends_on_image_and_words() -> None:
    assert content_key(b"a", "x") == content_key(b"a", "x")
    assert len({content_key(b"a", "x"), content_key(b"b", "x"), content_key(b"a", "y")}) == 3


def test_webhook_signatures_are_checked() -> None:
    secret, now = new_secret(), int(time.time())
    headers = {
        "webhook-id": "m1",
        "webhook-timestamp": str(now),
        "webhook-signature": f"v1,AAAA {sign(secret, 'm1', now, b'body')}",
    }
    assert verify_webhook(secret, headers, b"body")
    assert not verify_webhook(secret, headers, b"bodY")
    assert not verify_webhook(new_secret(), headers, b"body")
    assert not verify_webhook(secret, {**headers, "webhook-id": "m2"}, b"body")
    assert not verify_webhook(secret, {}, b"body")
    old = now - 3600
    late = {
        **headers,
        "webhook-timestamp": str(old),
        "webhook-signature": sign(secret, "m1", old, b"body"),
    }
    assert not verify_webhook(secret, late, b"body")
    assert verify_webhook(secret, late, b"body", tolerance_s=7200)
