"""The review queue: what waits for a person, nearest to a limit first, with random audits among it."""

import asyncio
from datetime import UTC, datetime
from typing import Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from service.access.principal import Operator
from service.api.deps import Serving
from service.api.reviews import QueueQuery
from service.api.schemas import document
from service.review.decisions import Reviews
from service.review.forms import models, sent
from service.review.shell import page

router = APIRouter(include_in_schema=False)
_SHOWN = 60


class QueueForm(QueueQuery):
    """The queue's filters; what has been reviewed is not in it, but in the list."""

    review_state: Literal["none", "good", "defective", "unsure"] = "none"


@router.get("/review")
async def queue(request: Request, serving: Serving, who: Operator) -> Response:
    """The first of the queue as a contact sheet, with filters and counts."""
    query = sent(request, QueueForm)
    if query.review_state != "none":
        asked = query.model_dump(mode="json", exclude_defaults=True, exclude={"limit"})
        return RedirectResponse("/inspections?" + urlencode({"wanted": "true", **asked}), 303)
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
        filtered=bool(kept),
        models=await asyncio.to_thread(models, serving.database),
        trail=urlencode({"in": "review", **kept}),
        now=datetime.now(UTC),
    )
