"""The MQTT sender against a real broker."""

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path

import aiomqtt
import pytest

from service.db.session import Database
from service.outbox.message import DeliveryError
from service.outbox.senders import Senders
from service.settings import Settings
from tests.service.outbox.conftest import (
    MOSQUITTO,
    Broker,
    add_sink,
    announce,
    certificates,
    missing,
    run,
    statuses,
    until,
)
from tests.service.outbox.test_dispatcher import dispatcher
from tests.service.outbox.test_webhook import MESSAGE

# In mosquitto's format; made with `mosquitto_passwd -b FILE line1 right`.
PASSWORDS = (
    "line1:$7$101$GRlZYb702LppMHJc$m0JO/A1t+rH0LJ+mjo0yIl34c8+MK3Nh8Ple2T4h"
    "aTkz0J5NTFAE3HTIXlfY/xVKSFl7JdfhF4Pb4+G8MCy9Xw==\n"
)


async def listen(port: int, heard: list[tuple[str, dict[str, object]]], ready: asyncio.Event) -> None:
    async with aiomqtt.Client("127.0.0.1", port) as client:
        await client.subscribe("plant/#", qos=1)
        ready.set()
        async for message in client.messages:
            heard.append((str(message.topic), json.loads(bytes(message.payload))))  # type: ignore[arg-type]


def test_published_to_the_topic_and_again_after_the_broker_was_away(
    database: Database, settings: Settings, broker: Broker
) -> None:
    url = f"mqtt://127.0.0.1:{broker.port}/plant/{{recipe}}/{{station}}/{{event}}"
    sink = add_sink(database, url, kind="mqtt", secret="")
    heard: list[tuple[str, dict[str, object]]] = []

    async def work() -> None:
        async with AsyncExitStack() as stack:
            dispatcher(database, settings, stack)
            for count in (5, 10):  # the second time over a connection that the restart has cut
                ready = asyncio.Event()
                listener = asyncio.create_task(listen(broker.port, heard, ready))
                await ready.wait()
                await asyncio.to_thread(announce, database, 5)
                await until(lambda count=count: statuses(database, sink) == ["delivered"] * count)
                await until(lambda count=count: len(heard) == count)
                listener.cancel()
                await asyncio.gather(listener, return_exceptions=True)
                await asyncio.to_thread(broker.stop)
                if count == 5:
                    await asyncio.to_thread(broker.start)

    run(work)
    assert {name for name, _ in heard} == {"plant/bolt/cam_1/inspection.finished"}
    assert len({str(body["id"]) for _, body in heard}) == 10


def test_messages_wait_while_the_broker_is_down(
    database: Database, settings: Settings, broker: Broker
) -> None:
    sink = add_sink(database, f"mqtt://127.0.0.1:{broker.port}/plant/x", kind="mqtt", secret="")
    broker.stop()

    async def work() -> None:
        async with AsyncExitStack() as stack:
            dispatcher(database, settings, stack)
            await asyncio.to_thread(announce, database, 3)
            await asyncio.sleep(0.6)
            assert statuses(database, sink) == ["pending"] * 3
            await asyncio.to_thread(broker.start)
            await until(lambda: statuses(database, sink) == ["delivered"] * 3)

    run(work)


def send(settings: Settings, url: str, password: str) -> None:
    async def work() -> None:
        sender = Senders(settings).make("mqtt", url, password)
        try:
            await sender.send(MESSAGE)
        finally:
            await sender.close()

    asyncio.run(work())


# paho leaves a socket whose handshake failed to the garbage collector.
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning"
)
def test_tls_checks_the_name_and_the_broker_the_password(settings: Settings, tmp_path: Path) -> None:
    if MOSQUITTO is None:
        missing("mosquitto is not installed (Debian: apt-get install mosquitto)")
    made = certificates(tmp_path / "tls", "localhost")
    passwords = tmp_path / "passwords"
    passwords.write_text(PASSWORDS)
    passwords.chmod(0o600)
    broker = Broker(
        tmp_path,
        f"certfile {made.certificate}",
        f"keyfile {made.key}",
        f"password_file {passwords}",
        "allow_anonymous false",
    )
    broker.start()
    trusting = settings.model_copy(update={"sink_ca": made.authority})
    url = f"mqtts://line1@localhost:{broker.port}/plant/x"
    try:
        send(trusting, url, "right")
        with pytest.raises(DeliveryError, match="cannot connect"):
            send(trusting, url, "wrong")
        with pytest.raises(DeliveryError, match="certificate verify failed"):
            send(settings, url, "right")
        by_address = trusting.model_copy(update={"sink_allow": "127.0.0.0/8"})
        with pytest.raises(DeliveryError, match="certificate verify failed"):
            send(by_address, url.replace("localhost", "127.0.0.1"), "right")
    finally:
        broker.stop()


def test_a_broker_that_is_not_allowed_is_not_connected_to(settings: Settings, broker: Broker) -> None:
    with pytest.raises(DeliveryError, match="INLIER_SINK_ALLOW"):
        send(
            settings.model_copy(update={"sink_allow": "public"}),
            f"mqtt://127.0.0.1:{broker.port}/plant/x",
            "",
        )
