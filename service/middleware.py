"""Pure ASGI layers around the app: request id and last-resort errors, security headers, body limit."""

import asyncio
import logging
import math
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import InspectionError, as_inspection_error, problem
from service.logs import address, request_id
from service.metrics import Metrics
from service.tracing import Span, span

log = logging.getLogger(__name__)
_GIVEN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_DRAIN_S = 5.0
_DRAIN_FACTOR = 4
SECURITY_HEADERS = (
    (
        "Content-Security-Policy",
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "same-origin"),
    ("X-Frame-Options", "DENY"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
)
_HTTPS_ONLY = "max-age=31536000"


class RequestContext:
    """Gives each request an id, logs and measures it once, and turns any exception into a problem."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        identifier = given if _GIVEN_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = identifier
        token, status, started = request_id.set(identifier), 0, time.monotonic()
        came_from = address.set(scope["client"][0] if scope.get("client") else "")

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = identifier
                for name, value in SECURITY_HEADERS:
                    headers.setdefault(name, value)
                if scope["scheme"] == "https":
                    headers.setdefault("Strict-Transport-Security", _HTTPS_ONLY)
            await send(message)

        parent = Headers(scope=scope).get("traceparent")
        with span(scope["method"], kind="server", parent=parent, inlier__request_id=identifier) as traced:
            try:
                await self._app(scope, receive, send_with_headers)
            except ClientDisconnect:
                log.debug("the client went away while it was sending")
            except Exception as error:
                known = as_inspection_error(error)
                if known.status == 500 or status:
                    log.exception("request failed")
                if status:  # too late for a problem document: break the connection off instead
                    raise
                await problem(scope, known)(scope, receive, send_with_headers)
            finally:
                self._record(scope, status, time.monotonic() - started, traced)
                request_id.reset(token)
                address.reset(came_from)

    def _record(self, scope: Scope, status: int, spent_s: float, traced: Span) -> None:
        # The template of the route, never the path: paths carry ids.
        route = getattr(scope.get("route"), "path", "other")
        method = scope["method"] if scope["method"] in ("GET", "POST", "HEAD", "OPTIONS") else "other"
        traced.name(f"{method} {route}")
        traced.note(http__request__method=method, http__route=route, http__response__status_code=status)
        self._metrics.requests.labels(method, route, str(status)).observe(spent_s)
        if (code := scope["state"].get("problem_code")) is not None:
            self._metrics.rejections.labels(code).inc()
        quiet = route.startswith(("/healthz", "/metrics", "/static"))
        log.log(
            logging.DEBUG if quiet else logging.INFO,
            "%s %r %d",  # quoted: a path may hold line breaks, and must not write log lines of its own
            scope["method"],
            scope["path"],
            status,
            extra={"duration_ms": round(1000 * spent_s, 1)},
        )


class _Refused(Exception):
    """Ends the reading of a body."""


class BodyLimit:
    """413 for bodies over the limit, by Content-Length before reading and by counting for chunked ones; 408
    for those that take longer than `longest_s` to arrive."""

    def __init__(self, app: ASGIApp, max_bytes: int, longest_s: float = math.inf) -> None:
        self._app = app
        self._max_bytes, self._longest_s = max_bytes, longest_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "0")
        if declared.isdigit() and int(declared) > self._max_bytes:
            await self._refuse(scope, receive, send, self._too_large(), more=True)
            return
        counted, started, more = 0, False, True
        refused: InspectionError | None = None
        until = time.monotonic() + self._longest_s

        async def receive_counted() -> Message:
            nonlocal counted, more, refused
            if refused is not None:
                raise _Refused
            if not more or self._longest_s == math.inf:
                message = await receive()
            else:
                try:
                    message = await asyncio.wait_for(receive(), max(0.0, until - time.monotonic()))
                except TimeoutError:
                    refused = self._too_slow()
                    raise _Refused from None
            more = message.get("more_body", False)
            counted += len(message.get("body", b""))
            if counted > self._max_bytes:
                refused = self._too_large()
                raise _Refused
            return message

        async def send_noted(message: Message) -> None:
            nonlocal started
            if refused is not None and not started:
                return  # whoever read the body made an answer of its own of that
            started = True
            await send(message)

        try:
            await self._app(scope, receive_counted, send_noted)
        except _Refused:
            if started:
                raise
        if refused is not None and not started:
            await self._refuse(scope, receive, send, refused, more and refused.status == 413)

    def _too_large(self) -> InspectionError:
        detail = (
            f"the request body is larger than the {self._max_bytes} bytes allowed (INLIER_MAX_BODY_BYTES)"
        )
        return InspectionError(413, "body-too-large", detail)

    def _too_slow(self) -> InspectionError:
        detail = "the request did not arrive in time (INLIER_BODY_TIMEOUT_S); send it again"
        return InspectionError(408, "upload-too-slow", detail)

    async def _refuse(
        self, scope: Scope, receive: Receive, send: Send, error: InspectionError, more: bool
    ) -> None:
        response = problem(scope, error)
        start: Message = {
            "type": "http.response.start",
            "status": response.status_code,
            "headers": [*response.raw_headers, (b"connection", b"close")],
        }
        await send(start)
        await send({"type": "http.response.body", "body": response.body, "more_body": True})
        # Closing while the client still sends resets the connection, and it would never read the answer.
        if more:
            await _drain(receive, _DRAIN_FACTOR * self._max_bytes)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _drain(receive: Receive, max_bytes: int) -> None:
    seen = 0
    try:
        async with asyncio.timeout(_DRAIN_S):
            while seen < max_bytes:
                message = await receive()
                seen += len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return
