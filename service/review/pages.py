"""The pages for people; they work without scripts."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import ValidationError

from service import render
from service.access.principal import Operator
from service.api.deps import Serving
from service.api.filters import ListQuery
from service.api.schemas import InspectionOut, document
from service.errors import validation_error
from service.review.shell import page

router = APIRouter(include_in_schema=False)
_PAGE = 48
_STAGES = ("decode", "store", "preprocess", "queue", "inference", "postprocess")


@router.get("/")
async def home(who: Operator) -> RedirectResponse:
    return RedirectResponse("/inspections", 307)


@router.get("/inspections")
async def inspections(request: Request, serving: Serving, who: Operator) -> HTMLResponse:
    """The newest inspections as a contact sheet."""
    query = _query(request)
    limit = min(query.limit, _PAGE)
    found = await asyncio.to_thread(serving.ledger.page, query.filter(), limit, query.position(), query.order)
    return page(
        request,
        "list.html",
        items=[document(row) for row in found.rows],
        following=query.address("/inspections", found.next) if found.next else None,
        query=query,
        filtered=query.filters_something,
    )


@router.get("/inspections/{identifier}")
async def inspection(request: Request, identifier: str, serving: Serving, who: Operator) -> HTMLResponse:
    """One inspection: image, reconstruction, heatmap and why the verdict is what it is."""
    row = await asyncio.to_thread(serving.ledger.get, identifier)
    shown = document(row)
    return page(request, "inspection.html", item=shown, gauge=gauge(shown), stages=_STAGES)


def _query(request: Request) -> ListQuery:
    # A form without scripts sends its empty fields, too; they filter nothing.
    given = {name: value for name, value in request.query_params.items() if value.strip()}
    try:
        return ListQuery.model_validate(given)
    except ValidationError as error:
        raise validation_error([dict(item) for item in error.errors()]) from None


def gauge(item: InspectionOut) -> dict[str, Any] | None:
    """Positions 0..1000 of score and thresholds on one linear scale; None without a score."""
    if item.score is None or item.thresholds is None:
        return None
    score, limits = item.score.calibrated, item.thresholds
    # A typical part scores 0 with spread 1, so -3 to a bit above the reject limit shows what matters.
    low = min(-3.0, score - 0.5)
    high = max(limits.reject + 3.0, score + 0.5)

    def at(value: float) -> float:
        return round(1000 * (min(max(value, low), high) - low) / (high - low), 1)

    return {
        "score": at(score),
        "review": at(limits.review),
        "reject": at(limits.reject),
    }


@router.get("/legend.png")
async def legend(who: Operator) -> Response:
    return Response(render.legend(), media_type=render.PNG, headers={"Cache-Control": "max-age=86400"})
