"""What is sent: a CloudEvents 1.0 document, and the signature of Standard Webhooks."""

import base64
import hashlib
import hmac
import json
import secrets
from datetime import datetime
from typing import Any, Literal, get_args

from service.db.tables import OutboxRow

Event = Literal[
    "inspection.finished",
    "inspection.failed",
    "review.created",
    "thresholds.changed",
    "model.shadowed",
    "model.unshadowed",
    "model.activated",
    "model.retired",
    "training.passed",
    "training.rejected",
    "training.failed",
]
EVENTS: tuple[Event, ...] = get_args(Event)
CONTENT_TYPE = "application/cloudevents+json"
_SOURCE = "urn:inlier:service"
_SECRET = "whsec_"


class DeliveryError(Exception):
    """An attempt that failed; the message is for the person who looks after the sink.

    `unreachable`: the receiver never had the message, which is then kept however long it takes.
    `rest`: other messages would fare no better now.
    """

    def __init__(
        self, detail: str, *, unreachable: bool = False, rest: bool = True, retry_after_s: float | None = None
    ) -> None:
        super().__init__(detail)
        self.unreachable = unreachable
        self.rest = rest
        self.retry_after_s = retry_after_s


class Message:
    """One message, the same at every attempt: receivers tell repetitions by its id."""

    def __init__(self, identifier: str, event: str, recipe: str, at: datetime, data: dict[str, Any]) -> None:
        self.id = identifier
        self.event = event
        self.recipe = recipe
        self.data = data
        self.body = json.dumps(
            {
                "specversion": "1.0",
                "id": identifier,
                "source": _SOURCE,
                "type": f"inlier.{event}",
                "time": at.isoformat(timespec="milliseconds"),
                "datacontenttype": "application/json",
                "recipe": recipe,
                "data": data,
            },
            separators=(",", ":"),
        ).encode()


def message(row: OutboxRow) -> Message:
    return Message(row.id, row.event, row.recipe, row.created_at, row.body)


def new_secret() -> str:
    """256 random bits in the form of Standard Webhooks."""
    return _SECRET + base64.b64encode(secrets.token_bytes(32)).decode()


def sign(secret: str, identifier: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature`: HMAC-SHA256 over id, time and body (Standard Webhooks 1.0)."""
    key = base64.b64decode(secret.removeprefix(_SECRET))
    signed = f"{identifier}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
