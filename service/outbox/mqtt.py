"""Messages to an MQTT broker (3.1.1) with QoS 1: delivered when the broker has acknowledged."""

import re
import ssl
from typing import Any
from urllib.parse import unquote, urlsplit

import aiomqtt

from service.outbox.addresses import resolve
from service.outbox.allow import AllowList
from service.outbox.message import DeliveryError, Message

PORTS = {"mqtt": 1883, "mqtts": 8883}
FIELDS = ("event", "recipe", "line", "station")
_FIELD = re.compile(r"\{(\w+)\}")
_SPECIAL = re.compile(r"[/+#\x00-\x1f\x7f]")
_QOS = 1


def topic(template: str, message: Message) -> str:
    """The template with its fields filled in; what would change the topic's shape becomes `_`."""
    values = {**message.data, "event": message.event, "recipe": message.recipe}

    def value(field: re.Match[str]) -> str:
        return _SPECIAL.sub("_", str(values.get(field[1]) or "none"))

    return _FIELD.sub(value, template)


def template_problem(template: str) -> str | None:
    """Why a topic template cannot be used."""
    unknown = sorted(set(_FIELD.findall(template)) - set(FIELDS))
    if unknown:
        return f"the topic has unknown fields {unknown}; known: {', '.join(FIELDS)}"
    if not template or re.search(r"[+#\x00{}]", _FIELD.sub("", template)) or template.startswith("$"):
        return "the topic after the host must not be empty, hold + or #, or start with $"
    return None


class _NamedTls(ssl.SSLContext):
    """Checks certificates against a name, although the connection is made to an address."""

    name = ""

    def wrap_socket(self, *arguments: Any, **options: Any) -> ssl.SSLSocket:
        return super().wrap_socket(*arguments, **{**options, "server_hostname": self.name})


def tls_context(ca_file: str | None = None) -> _NamedTls:
    """The system's authorities and, with `ca_file`, further ones."""
    context = _NamedTls(ssl.PROTOCOL_TLS_CLIENT)
    context.load_default_certs()
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    return context


class MqttSender:
    """Publishes to one broker over a connection that is kept, and made again when it broke."""

    def __init__(
        self, url: str, password: str, allow: AllowList, timeout_s: float, ca_file: str | None
    ) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port or PORTS[parts.scheme]
        self._user = unquote(parts.username) if parts.username else None
        self._password = password or None
        self._template = unquote(parts.path.removeprefix("/"))
        self._tls = tls_context(ca_file) if parts.scheme == "mqtts" else None
        self._allow = allow
        self._timeout_s = timeout_s
        self._client: aiomqtt.Client | None = None

    async def send(self, message: Message) -> None:
        """DeliveryError unless the broker acknowledges in time."""
        name = topic(self._template, message)
        kept = self._client is not None
        try:
            await self._publish(name, message.body)
        except aiomqtt.MqttError as error:
            await self.close()
            if not kept:
                raise DeliveryError(f"the broker did not acknowledge: {error}") from None
            # The broker may have gone since the last message; that says nothing of this one.
            try:
                await self._publish(name, message.body)
            except aiomqtt.MqttError as again:
                await self.close()
                raise DeliveryError(f"the broker did not acknowledge: {again}") from None

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            try:
                await client.__aexit__(None, None, None)
            except aiomqtt.MqttError:
                return  # it was gone already

    async def _publish(self, name: str, body: bytes) -> None:
        client = self._client or await self._connect()
        await client.publish(name, body, qos=_QOS, timeout=self._timeout_s)

    async def _connect(self) -> aiomqtt.Client:
        last = ""
        for address in await resolve(self._allow, self._host, self._port):
            if self._tls is not None:
                self._tls.name = self._host
            client = aiomqtt.Client(
                address,
                self._port,
                username=self._user,
                password=self._password,
                timeout=self._timeout_s,
                tls_context=self._tls,
            )
            try:
                self._client = await client.__aenter__()
            except (aiomqtt.MqttError, ValueError) as error:  # ValueError: a certificate for another name
                last = str(error)
            else:
                return self._client
        raise DeliveryError(f"cannot connect to {self._host}:{self._port}: {last}", unreachable=True)
