"""What the clients share: what they are told, what they send, and when they try again."""

import hashlib
import hmac
import json
import mimetypes
import random
import time
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx

from service.settings import client_environment

RETRIED = {429, 502, 503, 504, 507}
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 10.0
Image = bytes | str | Path
Picture = Literal["image", "heatmap", "reconstruction", "difference"]
Decision = Literal["good", "defective", "unsure", "withdrawn"]


class InlierError(Exception):
    """Whatever went wrong; the message says what to do about it."""


class Unavailable(InlierError):
    """The service did not answer, or could not take the request, for as long as was tried."""


class Problem(InlierError):
    """The service refused the request; `code` is stable, `document` is the whole RFC 9457 problem."""

    def __init__(self, response: httpx.Response) -> None:
        try:
            self.document: dict[str, Any] = response.json()
            detail = str(self.document["detail"])
        except (ValueError, KeyError, TypeError):
            self.document, detail = {}, response.text[:500]
        self.status = response.status_code
        self.code = str(self.document.get("type", "")).rpartition(":")[2]
        self.request_id = response.headers.get("x-request-id", "")
        super().__init__(f"{self.status} {self.code}: {detail}")


@dataclass(frozen=True)
class Inspection:
    """One inspection; `document` is all that the service says of it."""

    id: str
    status: str
    verdict: str | None  # None while unfinished; ERROR and EXPIRED are not PASS
    score: float | None
    score_raw: float | None
    regions: list[dict[str, Any]]
    recipe: str
    serial: str | None
    page: str  # for a person
    replayed: bool = False  # an earlier request with the same idempotency key made it
    document: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def finished(self) -> bool:
        return self.verdict is not None

    @classmethod
    def of(cls, document: dict[str, Any], base: str = "", *, replayed: bool = False) -> "Inspection":
        score = document["score"] or {}
        return cls(
            id=document["id"],
            status=document["status"],
            verdict=document["verdict"],
            score=score.get("calibrated"),
            score_raw=score.get("raw"),
            regions=document["regions"] or [],
            recipe=document["recipe"],
            serial=document["serial"],
            page=base + document["links"]["page"],
            replayed=replayed,
            document=document,
        )


class Attempts:
    """How long to pause before the next attempt, or that there is none."""

    def __init__(self, for_s: float) -> None:
        self._until = time.monotonic() + for_s
        self._pause_s = _FIRST_PAUSE_S

    def pause(self, answer: httpx.Response | None, error: httpx.TransportError | None) -> float | None:
        """None for an answer that stands; raises Unavailable when the time is over."""
        if answer is not None and answer.status_code not in RETRIED:
            return None
        pause_s = self._pause_s * random.uniform(0.5, 1.0)
        asked = "" if answer is None else answer.headers.get("retry-after", "")
        if asked.isascii() and asked.isdigit():
            pause_s = max(pause_s, float(asked))
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        if time.monotonic() + pause_s > self._until:
            why = error if answer is None else Problem(answer)
            raise Unavailable(f"the service did not take the request: {why!r}") from error
        return pause_s


class Base:
    """What both clients share: how requests look."""

    def __init__(self, url: str | None, key: str | None, retry_for_s: float, timeout_s: float) -> None:
        known = client_environment()
        self.url = (url or known.url).rstrip("/")
        self._retry_for_s = retry_for_s
        self._timeout_s = timeout_s
        key = key or known.key
        self._options: dict[str, Any] = {
            "base_url": self.url,
            "headers": {"Authorization": f"Bearer {key}"} if key else {},
            "timeout": timeout_s,
        }

    def _posting(
        self, image: Image, wait_s: float | None, key: str | None, said: Mapping[str, Any]
    ) -> dict[str, Any]:
        name = "image" if isinstance(image, bytes) else Path(image).name
        data = image if isinstance(image, bytes) else Path(image).read_bytes()
        metadata = json.dumps(
            {k: v for k, v in said.items() if v is not None}, sort_keys=True, default=_plain
        )
        headers = {"Idempotency-Key": key or content_key(data, metadata)}
        if wait_s is not None:
            headers["Prefer"] = f"wait={max(0, round(wait_s))}"
        media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
        files = {"image": (name, data, media_type), "metadata": (None, metadata, "application/json")}
        timeout = httpx.Timeout(self._timeout_s, read=self._timeout_s + (wait_s or 0))
        return {"headers": headers, "files": files, "timeout": timeout}

    def _shown(self, answer: httpx.Response) -> Inspection:
        replayed = answer.headers.get("idempotent-replayed") == "true"
        return Inspection.of(checked(answer), self.url, replayed=replayed)


def content_key(data: bytes, said: str = "") -> str:
    """The idempotency key of an image and what is said about it."""
    return "sha256-" + hashlib.sha256(hashlib.sha256(data).digest() + said.encode()).hexdigest()


def verify_webhook(secret: str, headers: Mapping[str, str], body: bytes, tolerance_s: float = 300) -> bool:
    """Whether a message that arrived at a webhook is the service's, unchanged, and sent just now.

    `headers` with lower-case names, or a mapping that does not mind.
    """
    try:
        timestamp = int(headers["webhook-timestamp"])
        signed = f"{headers['webhook-id']}.{timestamp}.".encode() + body
        given = headers["webhook-signature"].split()
    except (KeyError, ValueError):
        return False
    digest = hmac.digest(b64decode(secret.removeprefix("whsec_")), signed, hashlib.sha256)
    expected = "v1," + b64encode(digest).decode()
    fits = any(hmac.compare_digest(expected.encode(), one.encode()) for one in given)
    return fits and abs(time.time() - timestamp) <= tolerance_s


def checked(answer: httpx.Response) -> dict[str, Any]:
    if not answer.is_success:
        raise Problem(answer)
    document: dict[str, Any] = answer.json()
    return document


def review_body(
    inspection: Inspection, decision: Decision, reason: str | None, comment: str | None
) -> dict[str, Any]:
    revision = inspection.document["review"]["revision"]
    return {"decision": decision, "reason": reason, "comment": comment, "expected_revision": revision}


def _plain(value: Any) -> str:
    # Times, mostly; whatever else the caller says must have a text of its own.
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
