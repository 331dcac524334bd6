"""The pages for people; they work without scripts."""

import asyncio
import re
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from pydantic import ValidationError

from service import render
from service.api.deps import Serving
from service.api.filters import ListQuery
from service.api.schemas import InspectionOut, document
from service.errors import InspectionError, validation_error

router = APIRouter(include_in_schema=False)
FOLDER = Path(__file__).parent
_PAGE = 48
_CODE = re.compile(r"`([^`]+)`")
_STAGES = ("decode", "store", "preprocess", "queue", "inference", "postprocess")


def environment() -> Environment:
    """Templates with escaping on and undefined names as errors."""
    found = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["ms"] = lambda value: f"{value:,.0f} ms" if value >= 10 else f"{value:.1f} ms"
    found.filters["number"] = lambda value: f"{value:.2f}"
    found.filters["code"] = code
    found.filters["moment"] = lambda value: value.strftime("%Y-%m-%d %H:%M:%S UTC")
    return found


def code(text: str) -> Markup:
    """Text with `such` parts as code, everything escaped."""
    # A plain string first: Markup would escape the tags that are put in.
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text))))


@router.get("/")
async def home() -> RedirectResponse:
    return RedirectResponse("/inspections", 307)


@router.get("/inspections")
async def inspections(request: Request, serving: Serving) -> HTMLResponse:
    """The newest inspections as a contact sheet."""
    query = _query(request)
    limit = min(query.limit, _PAGE)
    page = await asyncio.to_thread(serving.ledger.page, query.filter(), limit, query.position(), query.order)
    html = serving.pages.get_template("list.html").render(
        items=[document(row) for row in page.rows],
        following=query.address("/inspections", page.next) if page.next else None,
        query=query,
        model=serving.manifest,
        filtered=query.filters_something,
    )
    return HTMLResponse(html)


@router.get("/inspections/{identifier}")
async def inspection(identifier: str, serving: Serving) -> HTMLResponse:
    """One inspection: image, reconstruction, heatmap and why the verdict is what it is."""
    try:
        row = await asyncio.to_thread(serving.ledger.get, identifier)
    except InspectionError as error:
        html = serving.pages.get_template("missing.html").render(detail=error.detail, model=serving.manifest)
        return HTMLResponse(html, 404)
    shown = document(row)
    html = serving.pages.get_template("inspection.html").render(
        item=shown, gauge=gauge(shown), stages=_STAGES, model=serving.manifest
    )
    return HTMLResponse(html)


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
async def legend() -> Response:
    return Response(render.legend(), media_type=render.PNG, headers={"Cache-Control": "max-age=86400"})
