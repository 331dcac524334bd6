"""The documents of `/v1/webhooks`, and which addresses may be registered."""

from datetime import datetime
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field

from service.api.bodies import Body
from service.db.repository.outbox import Depth, Status
from service.db.tables import OutboxRow, SinkRow
from service.errors import InspectionError
from service.metadata import PLAIN, Label, Name
from service.outbox.allow import AllowList
from service.outbox.message import EVENTS, Event
from service.outbox.mqtt import PORTS, template_problem

Kind = Literal["webhook", "mqtt"]
Url = Annotated[str, Field(min_length=8, max_length=2048, pattern=r"^(https?|mqtts?)://[\x21-\x7e]+$")]
Events = Annotated[list[Event], Field(min_length=1, max_length=len(EVENTS))]
Password = Annotated[str, Field(min_length=1, max_length=1024, pattern=PLAIN)]
_ADDRESS = (
    "`https://HOST/PATH` or `http://HOST/PATH`; for kind `mqtt` `mqtts://USER@HOST:PORT/TOPIC` or `mqtt://`, "
    "where TOPIC may hold `{event}`, `{recipe}`, `{line}` and `{station}`"
)


class WebhookIn(Body):
    """Somebody who wants to be told."""

    name: Label = Field(description="for people; unique")
    kind: Kind = Field(default="webhook", description="`webhook`: HTTP POST; `mqtt`: publish to a broker")
    url: Url = Field(description=_ADDRESS)
    events: Events = Field(default=list(EVENTS), description="what to be told")
    recipe: Name | None = Field(default=None, description="only of this recipe [default: of all]")
    enabled: bool = Field(default=True, description="false: nothing is collected, and what waits is not sent")
    password: Password | None = Field(default=None, description="of an MQTT broker; never shown again")


class WebhookChange(Body):
    """What to change; what is left out stays."""

    name: Label | None = None
    url: Url | None = Field(default=None, description=_ADDRESS)
    events: Events | None = None
    recipe: Name | None = Field(default=None, description="null: of all recipes")
    enabled: bool | None = None
    password: Password | None = None
    rotate_secret: bool = Field(default=False, description="make a new secret that signs the messages")

    def columns(self) -> dict[str, Any]:
        """The given values by column; only `recipe` can be set to null."""
        given = self.model_dump(exclude_unset=True, exclude={"rotate_secret"})
        names = {"url": "address", "password": "secret"}
        values = {names.get(name, name): value for name, value in given.items()}
        if values.get("events") is not None:
            values["events"] = sorted(set(values["events"]))
        return {name: value for name, value in values.items() if value is not None or name == "recipe"}


class WebhookOut(BaseModel):
    id: str
    name: str
    kind: Kind
    url: str
    events: list[Event]
    recipe: str | None
    enabled: bool
    created_by: str
    created_at: datetime
    pending: int | None = Field(default=None, description="messages that wait; only for a single webhook")
    oldest_pending_at: datetime | None = Field(default=None, description="since when the oldest waits")
    dead: int | None = Field(default=None, description="messages given up; only for a single webhook")


class WebhookCreated(WebhookOut):
    secret: str | None = Field(description="signs every message; shown when it is made and never again")


class WebhooksOut(BaseModel):
    items: list[WebhookOut]


class TestOut(BaseModel):
    delivered: bool
    error: str | None = Field(description="why not")
    duration_ms: float


class DeliveryQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    status: Status | None = None
    limit: int = Field(default=50, ge=1, le=500)
    cursor: Annotated[str, Field(pattern=r"^[0-9a-f-]{36}$")] | None = Field(
        default=None, description="`next_cursor` of the page before"
    )


class DeliveryOut(BaseModel):
    id: str = Field(description="the message's id, the same at every attempt")
    event: Event
    recipe: str
    status: Status = Field(description="`dead`: given up; it is kept until it is sent again")
    attempts: int = Field(description="how often the receiver had it and did not take it, and the last one")
    next_at: datetime | None = Field(description="when it is tried next, at the earliest")
    last_error: str | None
    created_at: datetime
    delivered_at: datetime | None


class DeliveriesOut(BaseModel):
    items: list[DeliveryOut] = Field(description="newest first")
    next_cursor: str | None


class RequeuedOut(BaseModel):
    requeued: int


def webhook(row: SinkRow, depth: Depth | None = None) -> WebhookOut:
    """A stored sink as the API shows it: without its secret."""
    names = ("id", "name", "kind", "events", "recipe", "enabled", "created_by", "created_at")
    shown = WebhookOut(url=row.address, **{name: getattr(row, name) for name in names})
    if depth is not None:
        shown.pending, shown.oldest_pending_at, shown.dead = depth.pending, depth.oldest, depth.dead
    return shown


def delivery(row: OutboxRow) -> DeliveryOut:
    names = (*("id", "event", "recipe", "status", "attempts", "last_error"), *("created_at", "delivered_at"))
    waits = row.next_at if row.status == "pending" else None
    return DeliveryOut(next_at=waits, **{name: getattr(row, name) for name in names})


def check_address(kind: str, url: str, allow: AllowList) -> None:
    """InspectionError 422 for an address that nothing can be sent to, or may not be."""

    def refuse(why: str) -> InspectionError:
        items = [{"location": "body.url", "message": why}]
        return InspectionError(422, "invalid-address", f"body.url: {why}", extra={"errors": items})

    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise refuse(str(error)) from None
    schemes = tuple(PORTS) if kind == "mqtt" else ("http", "https")
    if parts.scheme not in schemes:
        raise refuse(f"must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}")
    if not host or port == 0 or parts.fragment:
        raise refuse("must name a host, no port 0, and no #fragment")
    if parts.password is not None or (kind == "webhook" and parts.username is not None):
        raise refuse("must not hold a password; webhooks are signed, and brokers take `password`")
    if kind == "mqtt" and (why := template_problem(unquote(parts.path.removeprefix("/")))):
        raise refuse(why)
    if kind == "mqtt" and parts.query:
        raise refuse("a topic cannot hold a ?")
    if allow.refuses_literal(host):
        raise refuse(f"messages to {host} are not allowed by INLIER_SINK_ALLOW")
