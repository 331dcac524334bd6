"""The pages for people; they work without scripts."""

import asyncio

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import ValidationError

from service import render
from service.access.principal import Operator
from service.api.deps import Serving
from service.api.filters import ListQuery
from service.api.schemas import document
from service.errors import validation_error
from service.review.shell import page

router = APIRouter(include_in_schema=False)
_PAGE = 48


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


def _query(request: Request) -> ListQuery:
    # A form without scripts sends its empty fields, too; they filter nothing.
    given = {name: value for name, value in request.query_params.items() if value.strip()}
    try:
        return ListQuery.model_validate(given)
    except ValidationError as error:
        raise validation_error([dict(item) for item in error.errors()]) from None


@router.get("/legend.png")
async def legend(who: Operator) -> Response:
    return Response(render.legend(), media_type=render.PNG, headers={"Cache-Control": "max-age=86400"})
