"""Sinks of messages: register, look after, test; and what became of each delivery."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Path, Query, Response
from sqlalchemy.orm import Session

from service.access.principal import Admin
from service.api.deps import Services, Serving
from service.api.webhook_schemas import (
    DeliveriesOut,
    DeliveryOut,
    DeliveryQuery,
    RequeuedOut,
    TestOut,
    WebhookChange,
    WebhookCreated,
    WebhookIn,
    WebhookOut,
    WebhooksOut,
    check_address,
    delivery,
    webhook,
)
from service.db.repository import audit, outbox, sinks
from service.db.tables import SinkRow
from service.errors import InspectionError, problem_docs
from service.ids import new_id
from service.outbox.message import DeliveryError, Message, new_secret

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])
_UUID = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
WebhookId = Annotated[str, Path(pattern=_UUID, description="id of the webhook")]
DeliveryId = Annotated[str, Path(pattern=_UUID, description="id of the message")]
_T = TypeVar("_T")


async def _write(serving: Services, work: Callable[[Session], _T]) -> _T:
    def run() -> _T:
        with serving.database.write() as session:
            return work(session)

    return await asyncio.to_thread(run)


async def _read(serving: Services, work: Callable[[Session], _T]) -> _T:
    def run() -> _T:
        with serving.database.read() as session:
            return work(session)

    return await asyncio.to_thread(run)


def _found(session: Session, identifier: str) -> SinkRow:
    sink = sinks.get(session, identifier)
    if sink is None:
        raise InspectionError(404, "unknown-webhook", f"there is no webhook {identifier}")
    return sink


def _free(session: Session, name: str, identifier: str | None = None) -> None:
    taken = sinks.by_name(session, name)
    if taken is not None and taken.id != identifier:
        raise InspectionError(409, "name-taken", f"there is a webhook named {name!r} already; choose another")


@router.post("", status_code=201, summary="Register a webhook", responses=problem_docs(400, 409, 422, 503))
async def create_webhook(
    wanted: WebhookIn, response: Response, who: Admin, serving: Serving
) -> WebhookCreated:
    """From now on it is told; what signs its messages is in this answer and never again."""
    check_address(wanted.kind, wanted.url, serving.outbox.senders.allow)
    if wanted.kind == "webhook" and wanted.password is not None:
        raise InspectionError(422, "wrong-kind", "password is for brokers of kind mqtt; leave it out")
    secret = new_secret() if wanted.kind == "webhook" else wanted.password or ""

    def create(session: Session) -> SinkRow:
        _free(session, wanted.name)
        sink = SinkRow(
            id=new_id(),
            kind=wanted.kind,
            name=wanted.name,
            address=wanted.url,
            secret=secret,
            recipe=wanted.recipe,
            events=sorted(set(wanted.events)),
            enabled=wanted.enabled,
            created_by=who.name,
            created_at=datetime.now(UTC),
        )
        session.add(sink)
        said = {"name": sink.name, "url": sink.address, "events": sink.events}
        audit.record(session, who, "webhooks.create", f"webhook/{sink.id}", said)
        return sink

    shown = webhook(await _write(serving, create))
    response.headers["Location"] = f"{router.prefix}/{shown.id}"
    signs = secret if wanted.kind == "webhook" else None
    return WebhookCreated(**shown.model_dump(), secret=signs)


@router.get("", summary="All webhooks", responses=problem_docs(503))
async def list_webhooks(who: Admin, serving: Serving) -> WebhooksOut:
    """In the order of their names."""
    return WebhooksOut(items=[webhook(sink) for sink in await _read(serving, sinks.all_by_name)])


@router.get("/{webhook_id}", summary="One webhook", responses=problem_docs(404, 422, 503))
async def get_webhook(webhook_id: WebhookId, who: Admin, serving: Serving) -> WebhookOut:
    """With the messages that wait for it and those that were given up."""

    def read(session: Session) -> WebhookOut:
        return webhook(_found(session, webhook_id), outbox.depth(session, webhook_id))

    return await _read(serving, read)


@router.patch("/{webhook_id}", summary="Change a webhook", responses=problem_docs(400, 404, 409, 422, 503))
async def change_webhook(
    webhook_id: WebhookId, wanted: WebhookChange, who: Admin, serving: Serving
) -> WebhookCreated:
    """What is left out stays. With `rotate_secret` the answer holds the new secret; the old one is void."""
    new = new_secret() if wanted.rotate_secret else None

    def change(session: Session) -> SinkRow:
        sink = _found(session, webhook_id)
        values = wanted.columns()
        if "address" in values:
            check_address(sink.kind, values["address"], serving.outbox.senders.allow)
        if sink.kind == "webhook" and "secret" in values:
            raise InspectionError(422, "wrong-kind", "password is for brokers; use rotate_secret")
        if sink.kind == "mqtt" and new is not None:
            raise InspectionError(422, "wrong-kind", "rotate_secret is for webhooks; use password")
        if "name" in values:
            _free(session, values["name"], sink.id)
        if new is not None:
            values["secret"] = new
        for name, value in values.items():
            setattr(sink, name, value)
        outbox.wake(session, sink.id)
        said = {name: value if name != "secret" else "changed" for name, value in values.items()}
        audit.record(session, who, "webhooks.change", f"webhook/{sink.id}", said)
        return sink

    return WebhookCreated(**webhook(await _write(serving, change)).model_dump(), secret=new)


@router.delete(
    "/{webhook_id}", status_code=204, summary="Remove a webhook", responses=problem_docs(404, 422, 503)
)
async def delete_webhook(webhook_id: WebhookId, who: Admin, serving: Serving) -> None:
    """With every message that waits for it; `enabled: false` keeps them."""

    def remove(session: Session) -> None:
        sink = _found(session, webhook_id)
        audit.record(session, who, "webhooks.delete", f"webhook/{sink.id}", {"name": sink.name})
        sinks.remove(session, sink)

    await _write(serving, remove)


@router.post("/{webhook_id}/test", summary="Send a test message", responses=problem_docs(404, 422, 503))
async def test_webhook(webhook_id: WebhookId, who: Admin, serving: Serving) -> TestOut:
    """At once and once, past the outbox; says how it went. A sink that was resting is served again."""
    sink = await _read(serving, lambda session: _found(session, webhook_id))
    sender = serving.outbox.senders.make(sink.kind, sink.address, sink.secret)
    body = {"text": "a test message of the inspection service", "sent_by": who.name}
    started, problem = time.monotonic(), None
    try:
        await sender.send(Message(new_id(), "test", sink.recipe or "default", datetime.now(UTC), body))
    except DeliveryError as error:
        problem = str(error)
    finally:
        await sender.close()
    spent_ms = round(1000 * (time.monotonic() - started), 1)

    def note(session: Session) -> None:
        if problem is None:
            outbox.wake(session, webhook_id)
        audit.record(session, who, "webhooks.test", f"webhook/{webhook_id}", {"error": problem})

    await _write(serving, note)
    return TestOut(delivered=problem is None, error=problem, duration_ms=spent_ms)


@router.get(
    "/{webhook_id}/deliveries", summary="Messages to a webhook", responses=problem_docs(404, 422, 503)
)
async def list_deliveries(
    webhook_id: WebhookId, who: Admin, serving: Serving, query: Annotated[DeliveryQuery, Query()]
) -> DeliveriesOut:
    """Newest first. Delivered ones are kept for some days, dead ones until they are sent again."""

    def read(session: Session) -> DeliveriesOut:
        _found(session, webhook_id)
        rows = outbox.deliveries(
            session, webhook_id, status=query.status, limit=query.limit + 1, before=query.cursor
        )
        more = rows[query.limit - 1].id if len(rows) > query.limit else None
        return DeliveriesOut(items=[delivery(row) for row in rows[: query.limit]], next_cursor=more)

    return await _read(serving, read)


@router.post(
    "/{webhook_id}/deliveries/{delivery_id}/redeliver",
    status_code=202,
    summary="Send a message again",
    responses=problem_docs(404, 422, 503),
)
async def redeliver(
    webhook_id: WebhookId, delivery_id: DeliveryId, who: Admin, serving: Serving
) -> DeliveryOut:
    """Whatever became of it; with the same id, so that the receiver can tell."""

    def again(session: Session) -> DeliveryOut:
        _found(session, webhook_id)
        if not outbox.requeue(session, webhook_id, delivery_id):
            raise InspectionError(
                404, "unknown-delivery", f"there is no message {delivery_id} to this webhook"
            )
        audit.record(session, who, "webhooks.redeliver", f"webhook/{webhook_id}", {"message": delivery_id})
        row: Any = outbox.get(session, webhook_id, delivery_id)
        session.refresh(row)
        return delivery(row)

    return await _write(serving, again)


@router.post(
    "/{webhook_id}/redeliver",
    status_code=202,
    summary="Send all dead messages again",
    responses=problem_docs(404, 422, 503),
)
async def redeliver_dead(webhook_id: WebhookId, who: Admin, serving: Serving) -> RequeuedOut:
    """Everything that was given up, in its old order."""

    def again(session: Session) -> RequeuedOut:
        _found(session, webhook_id)
        count = outbox.requeue(session, webhook_id)
        audit.record(session, who, "webhooks.redeliver", f"webhook/{webhook_id}", {"messages": count})
        return RequeuedOut(requeued=count)

    return await _write(serving, again)
