"""Post an image, read its inspection, page through all of them."""

import asyncio
import math
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from sqlalchemy.exc import OperationalError

from service.access.principal import Camera, Operator
from service.api import upload
from service.api.deps import Serving
from service.api.export import MEDIA_TYPES, portion
from service.api.filters import ExportQuery, ListQuery
from service.api.schemas import InspectionOut, PageOut, document
from service.db.repository.search import Page, Position
from service.errors import problem_docs
from service.metadata import Traits

router = APIRouter(prefix="/v1/inspections", tags=["inspections"])
_EXPORT_ROWS = 500
_PREFERENCE = "`wait=N`: answer with the result if it is there within N seconds"


@router.post(
    "",
    summary="Inspect an image",
    responses={
        200: {"model": InspectionOut, "description": "The inspection has ended"},
        202: {"model": InspectionOut, "description": "Accepted and stored; the result follows at `Location`"},
        **problem_docs(400, 408, 409, 413, 415, 422, 429, 503, 507),
    },
    openapi_extra={"requestBody": upload.REQUEST_BODY},
)
async def post_inspection(
    request: Request,
    response: Response,
    serving: Serving,
    who: Camera,
    _traits: Annotated[Traits, Query()],
    idempotency_key: Annotated[
        str | None, Header(description="same key and body: same inspection", json_schema_extra=upload.KEY)
    ] = None,
    prefer: Annotated[str | None, Header(description=_PREFERENCE)] = None,
) -> InspectionOut:
    """Send the image as the body (parameters in the query, also `attr.NAME=VALUE`) or as a form.

    The answer comes when image and row are stored durably: 200 with the result if it is there in time,
    else 202. A verdict of ERROR or EXPIRED is never a PASS.
    """
    key = upload.idempotency_key(idempotency_key)
    asked = upload.preferred_wait_s(prefer)
    wait_s = min(serving.settings.default_wait_s if asked is None else asked, serving.settings.max_wait_s)
    accepted = await serving.acceptor.accept(
        lambda: upload.read_in_time(request, serving.settings.body_timeout_s), who, key, wait_s=wait_s
    )
    identifier = accepted.row.id
    try:
        row = serving.ending.just_now(identifier)
        if row is None:
            row = await asyncio.to_thread(serving.ledger.get, identifier)
        shown = document(row)
    except OperationalError:  # it is accepted all the same, and will be there when the database is
        shown = document(accepted.row)
    response.headers["Location"] = shown.links.self
    if asked is not None:
        response.headers["Preference-Applied"] = f"wait={wait_s:g}"
    if accepted.replayed:
        response.headers["Idempotent-Replayed"] = "true"
    if shown.verdict is None:
        response.status_code = 202
        expected_s = serving.acceptor.admission.expected_wait_s()
        response.headers["Retry-After"] = str(max(1, math.ceil(expected_s)))
    return shown


@router.post(
    "/{identifier}/cancel",
    summary="Stop an unfinished inspection",
    responses=problem_docs(404, 409, 503),
)
async def cancel_inspection(identifier: str, serving: Serving, who: Camera) -> InspectionOut:
    """It ends as failed: verdict ERROR, error code `cancelled`; the engine drops it at its next step."""
    return document(await serving.ending.cancel(identifier))


@router.get("", summary="Inspections", responses=problem_docs(422, 503))
async def list_inspections(
    response: Response, serving: Serving, who: Camera, query: Annotated[ListQuery, Query()]
) -> PageOut:
    """One page; it does not shift while new inspections arrive. Also `attr.NAME=VALUE`.

    With rare combinations of filters a page may be short, even empty, and still have a `next`: it was
    searched for a while, follow `next` to go on. The last page is the one without `next`.
    """
    page = await asyncio.to_thread(
        serving.ledger.page, query.filter(), query.limit, query.position(), query.order
    )
    following = query.address(router.prefix, page.next) if page.next else None
    if following is not None:
        response.headers["Link"] = f'<{following}>; rel="next"'
    return PageOut(items=[document(row) for row in page.rows], next=following)


@router.get(
    "/export",
    summary="Inspections as a file",
    response_class=Response,
    responses={
        200: {
            "description": "One inspection a line",
            "content": {"text/csv": {"schema": {"type": "string"}}, "application/x-ndjson": {}},
        },
        **problem_docs(422, 503),
    },
)
async def export_inspections(
    serving: Serving, who: Operator, query: Annotated[ExportQuery, Query()]
) -> Response:
    """Everything the filters let through, streamed; a file that breaks off was not finished."""
    form, wanted = query.format, query.filter()

    def read(after: Position | None) -> Page:
        return serving.ledger.page(wanted, _EXPORT_ROWS, after, query.order, whole=True)

    page = await asyncio.to_thread(read, None)  # before the answer begins: an error is a status

    async def lines(page: Page) -> AsyncIterator[bytes]:
        yield await asyncio.to_thread(portion, page.rows, form, first=True)
        while page.next is not None:
            page = await asyncio.to_thread(read, page.next)
            yield await asyncio.to_thread(portion, page.rows, form, first=False)

    headers = {
        "Content-Disposition": f'attachment; filename="inspections.{form}"',
        "Cache-Control": "no-store",
    }
    return StreamingResponse(lines(page), media_type=MEDIA_TYPES[form], headers=headers)


@router.get("/{identifier}", summary="One inspection", responses=problem_docs(404, 503))
async def get_inspection(identifier: str, serving: Serving, who: Camera) -> InspectionOut:
    """Status, verdict, score, thresholds, regions, model, latency and links."""
    return document(await asyncio.to_thread(serving.ledger.get, identifier))
