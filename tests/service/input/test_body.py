"""How much of a body is read before it is refused, and what a reader without a limit would do."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from starlette.requests import Request
from starlette.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

from service.app import create_app
from service.middleware import BodyLimit
from service.settings import Settings
from tests.service.conftest import PixelEngine

LIMIT, CHUNK, CHUNKS = 10_000, 1000, 1000
FORM = b"multipart/form-data; boundary=x"
HEAD = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
KINDS = {
    "announced": ("/v1/inspections", [(b"content-type", b"image/png"), (b"content-length", b"1000000")]),
    "chunked": ("/v1/inspections", [(b"content-type", b"image/png")]),
    "form": ("/v1/inspections", [(b"content-type", FORM)]),
    "sign-in": ("/v1/session", [(b"content-type", b"application/json")]),
}


@dataclass
class Answer:
    """Status of an answer, and how much of the body had been asked for when it began."""

    status: int = 0
    bytes_read: int = 0


async def upload(app: Any, kind: str) -> Answer:
    """A body a hundred times as large as is allowed, in chunks, as far as it is asked for."""
    path, headers = KINDS[kind]
    answer, sent = Answer(), 0

    async def receive() -> Message:
        nonlocal sent
        sent += 1
        body = HEAD.ljust(CHUNK, b"\0") if kind == "form" and sent == 1 else bytes(CHUNK)
        return {"type": "http.request", "body": body, "more_body": sent < CHUNKS}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            answer.status, answer.bytes_read = message["status"], sent * CHUNK

    scope: Scope = {
        "type": "http", "http_version": "1.1", "method": "POST", "scheme": "http", "path": path,
        "raw_path": path.encode(), "query_string": b"", "root_path": "", "client": ("127.0.0.1", 1),
        "server": ("testserver", 80), "headers": [(b"host", b"testserver"), *headers],
    }  # fmt: skip
    await app(scope, receive, send)
    return answer


def holds(settings: Settings, kind: str) -> None:
    """It is refused as too large, after not much more than the limit."""
    limited = settings.model_copy(update={"max_body_bytes": LIMIT})
    with TestClient(create_app(limited, PixelEngine())) as client:
        answer = client.portal.call(upload, client.app, kind)
    assert answer.status == 413
    assert answer.bytes_read <= (0 if kind == "announced" else LIMIT + CHUNK)


@pytest.mark.promise(17)
@pytest.mark.parametrize("kind", KINDS)
def test_no_more_is_read_than_is_allowed(settings: Settings, kind: str) -> None:
    holds(settings, kind)


async def without_limit(self: BodyLimit, scope: Scope, receive: Receive, send: Send) -> None:
    await self._app(scope, receive, send)


async def whole_first(self: BodyLimit, scope: Scope, receive: Receive, send: Send) -> None:
    """Reads all of the body, and only then says that it was too large."""
    if scope["type"] == "http" and len(await Request(scope, receive).body()) > self._max_bytes:
        await self._refuse(scope, receive, send, self._too_large(), more=False)
    elif scope["type"] != "http":
        await self._app(scope, receive, send)


@pytest.mark.promise(17, control=True)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reader", [without_limit, whole_first])
def test_a_reader_without_a_limit_would_be_found(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, kind: str, reader: Callable[..., Any]
) -> None:
    monkeypatch.setattr(BodyLimit, "__call__", reader)
    with pytest.raises(AssertionError):
        holds(settings, kind)
