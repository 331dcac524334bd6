"""Webhooks and MQTT sinks: made, tested, paused, and what became of each message."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from service.access.principal import Admin, Principal
from service.api import webhooks as api
from service.api.deps import Services, Serving
from service.api.webhook_schemas import (
    DeliveryQuery,
    TestOut,
    WebhookChange,
    WebhookIn,
    WebhookOut,
    webhook,
)
from service.api.webhooks import DeliveryId, WebhookId
from service.db.repository import outbox, sinks
from service.errors import InspectionError
from service.outbox.message import EVENTS
from service.review import forms as queries
from service.review.admin.forms import (
    UNTOUCHED,
    Filled,
    admin_page,
    back,
    checked,
    chosen,
    given,
    refused,
    sent,
)

router = APIRouter(prefix="/admin/webhooks", include_in_schema=False)
_SHOWN = 50


class Page(DeliveryQuery):
    """The query of a webhook's page."""

    limit: int = _SHOWN
    done: str | None = None


@router.get("")
async def shown(request: Request, serving: Serving, who: Admin) -> HTMLResponse:
    return await _list(request, serving)


@router.post("")
async def create(request: Request, serving: Serving, who: Admin) -> HTMLResponse:
    """The answer is the page of the new webhook, with the secret that signs its messages, this once."""
    values: dict[str, Any] = {**await sent(request), "events": await chosen(request, "events")}
    try:
        wanted = {**given(values, "name", "kind", "url", "recipe", "password"), "events": values["events"]}
        made = await api.create_webhook(checked(WebhookIn, wanted), Response(), who, serving)
    except InspectionError as error:
        return await _list(request, serving, refused("create", values, error))
    return await _one(request, serving, who, made.id, secret=made.secret, made=True)


@router.get("/{webhook_id}")
async def one(request: Request, webhook_id: WebhookId, serving: Serving, who: Admin) -> HTMLResponse:
    return await _one(request, serving, who, webhook_id)


@router.post("/{webhook_id}")
async def change(request: Request, webhook_id: WebhookId, serving: Serving, who: Admin) -> Response:
    values: dict[str, Any] = {**await sent(request), "events": await chosen(request, "events")}
    try:
        wanted = {
            **given(values, "name", "url", "password"),
            "events": values["events"],
            "recipe": values.get("recipe") or None,
        }
        await api.change_webhook(webhook_id, checked(WebhookChange, wanted), who, serving)
    except InspectionError as error:
        return await _one(request, serving, who, webhook_id, refused("change", values, error))
    return back(f"{router.prefix}/{webhook_id}", "changed")


@router.post("/{webhook_id}/pause")
async def pause(request: Request, webhook_id: WebhookId, serving: Serving, who: Admin) -> Response:
    """Or with `enabled=true` go on."""
    enabled = (await sent(request)).get("enabled") == "true"
    await api.change_webhook(webhook_id, WebhookChange(enabled=enabled), who, serving)
    return back(f"{router.prefix}/{webhook_id}", "resumed" if enabled else "paused")


@router.post("/{webhook_id}/secret")
async def new_secret(request: Request, webhook_id: WebhookId, serving: Serving, who: Admin) -> HTMLResponse:
    made = await api.change_webhook(webhook_id, WebhookChange(rotate_secret=True), who, serving)
    return await _one(request, serving, who, webhook_id, secret=made.secret)


@router.post("/{webhook_id}/test")
async def test(request: Request, webhook_id: WebhookId, serving: Serving, who: Admin) -> HTMLResponse:
    tested = await api.test_webhook(webhook_id, who, serving)
    return await _one(request, serving, who, webhook_id, tested=tested)


@router.post("/{webhook_id}/redeliver")
async def redeliver_dead(webhook_id: WebhookId, serving: Serving, who: Admin) -> Response:
    await api.redeliver_dead(webhook_id, who, serving)
    return back(f"{router.prefix}/{webhook_id}", "requeued")


@router.post("/{webhook_id}/deliveries/{delivery_id}/redeliver")
async def redeliver(webhook_id: WebhookId, delivery_id: DeliveryId, serving: Serving, who: Admin) -> Response:
    await api.redeliver(webhook_id, delivery_id, who, serving)
    return back(f"{router.prefix}/{webhook_id}", "requeued")


@router.post("/{webhook_id}/delete")
async def delete(webhook_id: WebhookId, serving: Serving, who: Admin) -> Response:
    await api.delete_webhook(webhook_id, who, serving)
    return back(router.prefix, "deleted")


async def _list(request: Request, serving: Services, filled: Filled = UNTOUCHED) -> HTMLResponse:
    def read() -> list[WebhookOut]:
        with serving.database.read() as session:
            rows = sinks.all_by_name(session)
            return [webhook(row, outbox.depth(session, row.id)) for row in rows]

    items = await asyncio.to_thread(read)
    return admin_page(request, "webhooks.html", filled, items=items, events=EVENTS)


async def _one(
    request: Request,
    serving: Services,
    who: Principal,
    identifier: str,
    filled: Filled = UNTOUCHED,
    *,
    secret: str | None = None,
    made: bool = False,
    tested: TestOut | None = None,
) -> HTMLResponse:
    query = queries.sent(request, Page) if request.method == "GET" else Page()
    sink = await api.get_webhook(identifier, who, serving)
    return admin_page(
        request,
        "webhook.html",
        filled,
        sink=sink,
        deliveries=await api.list_deliveries(identifier, who, serving, query),
        query=query,
        events=EVENTS,
        secret=secret,
        made=made,
        tested=tested,
    )
