"""The review queue: what waits for a person, nearest to a limit first, with random audits among it."""

import asyncio
from datetime import UTC, datetime
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from pydantic import ValidationError

from service.access.principal import Operator
from service.api.deps import Serving
from service.api.reviews import QueueQuery
from service.api.schemas import document
from service.errors import validation_error
from service.review.decisions import Reviews
from service.review.shell import page

router = APIRouter(include_in_schema=False)
_SHOWN = 60
_FILTERS = ("recipe", "line", "station", "lot", "serial")


@router.get("/review")
async def queue(request: Request, serving: Serving, who: Operator) -> HTMLResponse:
    """The first of the queue as a contact sheet, with filters and counts."""
    given = {name: value for name, value in request.query_params.items() if value.strip()}
    try:
        query = QueueQuery.model_validate(given)
    except ValidationError as error:
        raise validation_error([dict(item) for item in error.errors()]) from None
    reviews = Reviews(serving.database)
    rows = await asyncio.to_thread(reviews.queue, who, query.filter(), _SHOWN)
    waiting, audits = await asyncio.to_thread(reviews.open_count, query.filter())
    kept = query.model_dump(mode="json", exclude_defaults=True, exclude={"limit"})
    return page(
        request,
        "queue.html",
        items=[document(row) for row in rows],
        waiting=waiting,
        audits=audits,
        query=query,
        filters=_FILTERS,
        filtered=bool(kept),
        trail=urlencode({"in": "review", **kept}),
        now=datetime.now(UTC),
    )
