"""A sender for each kind of sink, kept while it is used."""

import ssl
import time
from pathlib import Path
from typing import Protocol

from service.db.tables import SinkRow
from service.errors import StartupError
from service.outbox.allow import AllowList
from service.outbox.message import Message
from service.outbox.mqtt import MqttSender
from service.outbox.webhook import WebhookSender
from service.settings import Settings

_IDLE_S = 60.0


class Sender(Protocol):
    async def send(self, message: Message) -> None: ...

    async def close(self) -> None: ...


class Senders:
    """Makes senders by the settings, and keeps one per sink with its connection."""

    def __init__(self, settings: Settings) -> None:
        self.allow = AllowList.parse(settings.sink_allow)
        self.timeout_s = settings.sink_timeout_s
        self._ca_file = settings.sink_ca
        self._tls = _trust(settings.sink_ca)
        self._kept: dict[str, tuple[tuple[str, str, str], Sender, float]] = {}

    def make(self, kind: str, address: str, secret: str) -> Sender:
        if kind == "mqtt":
            ca_file = None if self._ca_file is None else str(self._ca_file)
            return MqttSender(address, secret, self.allow, self.timeout_s, ca_file)
        return WebhookSender(address, secret, self.allow, self.timeout_s, self._tls)

    async def of(self, sink: SinkRow) -> Sender:
        """The sender of a sink; a new one where its address or secret has changed."""
        wanted = (sink.kind, sink.address, sink.secret)
        kept = self._kept.get(sink.id)
        if kept is not None and kept[0] != wanted:
            await self._drop(sink.id)
            kept = None
        sender = self.make(*wanted) if kept is None else kept[1]
        self._kept[sink.id] = (wanted, sender, time.monotonic())
        return sender

    async def close_idle(self, busy: set[str]) -> None:
        now = time.monotonic()
        for sink_id, (_, _, used) in list(self._kept.items()):
            if sink_id not in busy and now - used > _IDLE_S:
                await self._drop(sink_id)

    async def close(self) -> None:
        for sink_id in list(self._kept):
            await self._drop(sink_id)

    async def _drop(self, sink_id: str) -> None:
        await self._kept.pop(sink_id)[1].close()


def _trust(ca_file: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(str(ca_file))
        except (OSError, ssl.SSLError) as error:
            raise StartupError(f"--sink-ca {ca_file} cannot be read: {error}") from None
    return context
