"""A small typed client of the service, for cameras, gateways and scripts; needs httpx alone.

    with Client("http://127.0.0.1:8000", key="inl_...") as client:
        part = client.inspect("part.png", serial="S1", wait_s=10)
        print(part.verdict, part.score)

Every call may be repeated safely, and is: on lost connections and on 429, 502, 503, 504 and 507, with pauses
that double, or that the service asks for. Posting twice gives one inspection, by an idempotency key made of
the image and what is said about it.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import Any, Self

import httpx

from service.client_base import (
    Attempts,
    Base,
    Decision,
    Image,
    InlierError,
    Inspection,
    Picture,
    Problem,
    Unavailable,
    checked,
    content_key,
    review_body,
    verify_webhook,
)

__all__ = [
    "AsyncClient",
    "Client",
    "InlierError",
    "Inspection",
    "Problem",
    "Unavailable",
    "content_key",
    "verify_webhook",
]
_POLL_S = (0.05, 1.0)


class Client(Base):
    """`url` and `key` default to INLIER_URL and INLIER_KEY; failed calls are repeated for `retry_for_s`."""

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        retry_for_s: float = 60,
        timeout_s: float = 30,
    ) -> None:
        super().__init__(url, key, retry_for_s, timeout_s)
        self._http = httpx.Client(**self._options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def inspect(
        self,
        image: Image,
        *,
        wait_s: float | None = None,
        idempotency_key: str | None = None,
        **metadata: Any,
    ) -> Inspection:
        """Post an image (bytes, or a file) with recipe, serial, lot, line, station, attributes and so on.

        With `wait_s` the answer holds the verdict if it is there in time; see `finished`, `result`.
        """
        request = self._posting(image, wait_s, idempotency_key, metadata)
        return self._shown(self._call("POST", "/v1/inspections", **request))

    def get(self, identifier: str) -> Inspection:
        return self._shown(self._call("GET", f"/v1/inspections/{identifier}"))

    def result(self, identifier: str, timeout_s: float = 60) -> Inspection:
        """The finished inspection; Unavailable if it has not ended by then."""
        until, pause_s = time.monotonic() + timeout_s, _POLL_S[0]
        while not (found := self.get(identifier)).finished:
            if time.monotonic() + pause_s > until:
                raise Unavailable(f"inspection {identifier} has not ended after {timeout_s:g} s")
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _POLL_S[1])
        return found

    def picture(self, inspection: Inspection, name: Picture, **options: Any) -> bytes:
        """A picture of a finished inspection; `format="raw"` gives the heatmap as a 16-bit PNG."""
        answer = self._call("GET", f"/v1/inspections/{inspection.id}/{name}", params=options)
        if not answer.is_success:
            raise Problem(answer)
        return answer.content

    def inspections(self, **filters: Any) -> Iterator[Inspection]:
        """All that match (see `GET /v1/inspections`), newest first, page by page."""
        page = checked(self._call("GET", "/v1/inspections", params=filters))
        while True:
            yield from (Inspection.of(item, self.url) for item in page["items"])
            if page["next"] is None:
                return
            page = checked(self._call("GET", page["next"]))

    def review(
        self,
        inspection: Inspection,
        decision: Decision,
        *,
        reason: str | None = None,
        comment: str | None = None,
    ) -> dict[str, Any]:
        """A person's decision; Problem 409 if somebody decided since `inspection` was read."""
        body = review_body(inspection, decision, reason, comment)
        answer = self._call("POST", f"/v1/inspections/{inspection.id}/reviews", json=body)
        return checked(answer)

    def _call(self, method: str, path: str, **request: Any) -> httpx.Response:
        attempts = Attempts(self._retry_for_s)
        while True:
            answer, error = None, None
            try:
                answer = self._http.request(method, path, **request)
            except httpx.TransportError as caught:
                error = caught
            pause_s = attempts.pause(answer, error)
            if pause_s is None:
                assert answer is not None
                return answer
            time.sleep(pause_s)


class AsyncClient(Base):
    """As `Client`, for asyncio."""

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        retry_for_s: float = 60,
        timeout_s: float = 30,
        connections: int = 100,
    ) -> None:
        super().__init__(url, key, retry_for_s, timeout_s)
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._http = httpx.AsyncClient(**self._options, limits=limits)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def inspect(
        self,
        image: Image,
        *,
        wait_s: float | None = None,
        idempotency_key: str | None = None,
        **metadata: Any,
    ) -> Inspection:
        request = await asyncio.to_thread(self._posting, image, wait_s, idempotency_key, metadata)
        return self._shown(await self._call("POST", "/v1/inspections", **request))

    async def get(self, identifier: str) -> Inspection:
        return self._shown(await self._call("GET", f"/v1/inspections/{identifier}"))

    async def inspections(self, **filters: Any) -> AsyncIterator[Inspection]:
        page = checked(await self._call("GET", "/v1/inspections", params=filters))
        while True:
            for item in page["items"]:
                yield Inspection.of(item, self.url)
            if page["next"] is None:
                return
            page = checked(await self._call("GET", page["next"]))

    async def _call(self, method: str, path: str, **request: Any) -> httpx.Response:
        attempts = Attempts(self._retry_for_s)
        while True:
            answer, error = None, None
            try:
                answer = await self._http.request(method, path, **request)
            except httpx.TransportError as caught:
                error = caught
            pause_s = attempts.pause(answer, error)
            if pause_s is None:
                assert answer is not None
                return answer
            await asyncio.sleep(pause_s)
