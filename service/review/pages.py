"""The pages for people; they work without scripts."""

import asyncio

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from service import render
from service.access.principal import Operator
from service.api.deps import Serving
from service.api.filters import ListQuery
from service.api.schemas import document
from service.review.forms import models, sent
from service.review.shell import page

router = APIRouter(include_in_schema=False)
_PAGE = 48


@router.get("/inspections")
async def inspections(request: Request, serving: Serving, who: Operator) -> HTMLResponse:
    """The newest inspections as a contact sheet."""
    query = sent(request, ListQuery)
    limit = min(query.limit, _PAGE)
    found = await asyncio.to_thread(serving.ledger.page, query.filter(), limit, query.position(), query.order)
    return page(
        request,
        "list.html",
        items=[document(row) for row in found.rows],
        following=query.address("/inspections", found.next) if found.next else None,
        query=query,
        filtered=query.filters_something,
        models=await asyncio.to_thread(models, serving.database),
    )


@router.get("/legend.png")
async def legend(who: Operator) -> Response:
    return Response(render.legend(), media_type=render.PNG, headers={"Cache-Control": "max-age=86400"})
