"""The overview: what each line is doing, live by server-sent events."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, StreamingResponse

from service.access.principal import Operator
from service.api.deps import Services, Serving
from service.review.lately import Group, overview
from service.review.shell import context, page

router = APIRouter(include_in_schema=False)
_LOOK_S = 2.0
_STREAM_S = 60.0  # then the browser asks again, and whoever is signed out is refused
_TICK_S = 0.25


@router.get("/")
async def home(request: Request, serving: Serving, who: Operator) -> HTMLResponse:
    """Lines and recipes of the last hour."""
    groups = await asyncio.to_thread(overview, serving.database)
    return page(request, "overview.html", **_values(serving, groups))


@router.get("/overview/events")
async def events(request: Request, serving: Serving, who: Operator) -> StreamingResponse:
    """The same, as HTML, whenever it has changed: `text/event-stream`."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_stream(request, serving), media_type="text/event-stream", headers=headers)


async def _stream(request: Request, serving: Services) -> AsyncIterator[str]:
    template, given = serving.pages.get_template("parts/lines.html"), context(request)
    yield "retry: 2000\n\n"
    before, started = "", asyncio.get_running_loop().time()
    while asyncio.get_running_loop().time() - started < _STREAM_S:
        groups = await asyncio.to_thread(serving.watched.groups, serving.database, _LOOK_S / 2)
        html = template.render(**given, **_values(serving, groups))
        if html != before:
            lines = "".join(f"data: {line}\n" for line in html.splitlines())
            yield f"event: lines\n{lines}\n"
            before = html
        for _ in range(round(_LOOK_S / _TICK_S)):
            if serving.stopping:  # an open stream must not hold up the end of the service
                return
            await asyncio.sleep(_TICK_S)


def _values(serving: Services, groups: Sequence[Group]) -> dict[str, Any]:
    return {
        "groups": groups,
        "drift": {group.recipe: serving.drift.seen(group.recipe) for group in groups},
        "depth": serving.runtime.admission.depth,
        "backlog": sum(group.backlog for group in groups),
    }
