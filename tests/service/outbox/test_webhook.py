"""The HTTP sender against a real server: what it sends, what it refuses to do."""

import asyncio
import json
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from service.outbox.message import DeliveryError, Message, sign
from service.outbox.senders import Senders
from service.settings import Settings
from tests.service.outbox.conftest import certificates
from tests.service.receiver import Receiver

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
MESSAGE = Message("m1", "inspection.finished", "bolt", datetime.now(UTC), {"verdict": "PASS"})


def send(settings: Settings, url: str, times: int = 1) -> None:
    async def work() -> None:
        sender = Senders(settings).make("webhook", url, SECRET)
        try:
            for _ in range(times):
                await sender.send(MESSAGE)
        finally:
            await sender.close()

    asyncio.run(work())


def failure(settings: Settings, url: str) -> DeliveryError:
    with pytest.raises(DeliveryError) as caught:
        send(settings, url)
    return caught.value


def test_what_is_sent(settings: Settings, receiver: Receiver) -> None:
    send(settings, receiver.url, times=2)
    got = receiver.received[0]
    assert got.path == "/hook"
    assert json.loads(got.body)["data"] == {"verdict": "PASS"}
    assert got.headers["content-type"] == "application/cloudevents+json"
    assert got.headers["host"] == f"127.0.0.1:{receiver.port}"
    timestamp = int(got.headers["webhook-timestamp"])
    assert abs(timestamp - datetime.now(UTC).timestamp()) < 60
    assert got.headers["webhook-signature"] == sign(SECRET, "m1", timestamp, got.body)
    assert receiver.ids == ["m1", "m1"]


@pytest.mark.parametrize(
    ("status", "unreachable", "rest"),
    [(400, False, False), (404, False, False), (500, False, True), (503, True, True), (429, True, True)],
)
def test_answers_are_told_apart(
    settings: Settings, receiver: Receiver, status: int, unreachable: bool, rest: bool
) -> None:
    receiver.status = status
    error = failure(settings, receiver.url)
    assert (error.unreachable, error.rest) == (unreachable, rest)
    assert str(status) in str(error)


def test_the_pause_a_receiver_asks_for_is_kept(settings: Settings, receiver: Receiver) -> None:
    receiver.status, receiver.headers = 429, {"Retry-After": "17"}
    assert failure(settings, receiver.url).retry_after_s == 17


def test_redirects_are_not_followed(settings: Settings, receiver: Receiver) -> None:
    receiver.status, receiver.headers = 307, {"Location": receiver.url + "/elsewhere"}
    assert "redirect" in str(failure(settings, receiver.url))
    assert [one.path for one in receiver.received] == ["/hook"]


def test_a_slow_receiver_is_given_up_on(settings: Settings, receiver: Receiver) -> None:
    receiver.delay_s = 3
    error = failure(settings.model_copy(update={"sink_timeout_s": 0.3}), receiver.url)
    assert "0.3 s" in str(error)
    assert not error.unreachable


def test_an_answer_s_body_is_neither_read_beyond_its_bound_nor_told(
    settings: Settings, receiver: Receiver
) -> None:
    receiver.status, receiver.answer_body = 400, b"internal secret" * 1_000_000
    assert "secret" not in str(failure(settings, receiver.url))


def test_addresses_that_are_not_allowed_are_not_connected_to(settings: Settings, receiver: Receiver) -> None:
    public = settings.model_copy(update={"sink_allow": "public"})
    for host in ("127.0.0.1", "localhost", "0.0.0.0", "[::ffff:127.0.0.1]"):
        error = failure(public, f"http://{host}:{receiver.port}/hook")
        assert error.unreachable
        assert "INLIER_SINK_ALLOW" in str(error)
    assert receiver.received == []


def test_the_address_that_was_checked_is_the_one_connected_to(
    settings: Settings, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that changes its address between check and connection (DNS rebinding) gains nothing."""
    looked_up: list[str] = []
    real = socket.getaddrinfo

    def changing(host: Any, *arguments: Any, **options: Any) -> Any:
        if host != "rebind.example":
            return real(host, *arguments, **options)
        looked_up.append(host)
        return real("127.0.0.1" if len(looked_up) == 1 else "127.0.0.2", *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", changing)
    only = settings.model_copy(update={"sink_allow": "127.0.0.1/32"})
    send(only, f"http://rebind.example:{receiver.port}/hook")
    assert receiver.received[0].headers["host"] == f"rebind.example:{receiver.port}"
    assert looked_up == ["rebind.example"]
    assert "127.0.0.2" in str(failure(only, f"http://rebind.example:{receiver.port}/hook"))


def test_no_proxy_is_taken_from_the_environment(
    settings: Settings, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    send(settings, receiver.url)
    assert len(receiver.received) == 1


def test_a_certificate_must_be_trusted_and_of_the_name(settings: Settings, tmp_path: Path) -> None:
    for name, fits in (("localhost", True), ("other.example", False)):
        made = certificates(tmp_path / name, name)
        receiver = Receiver(tls=made.server_context())
        receiver.start()
        url = f"https://localhost:{receiver.port}/hook"
        try:
            assert "CERTIFICATE_VERIFY_FAILED" in str(failure(settings, url))
            trusting = settings.model_copy(update={"sink_ca": made.authority})
            if fits:
                send(trusting, url)
            else:
                assert "CERTIFICATE_VERIFY_FAILED" in str(failure(trusting, url))
            assert len(receiver.received) == fits
        finally:
            receiver.stop()
