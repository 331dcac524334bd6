"""Post an image, read its inspection, page through all of them."""

import asyncio
import base64
import binascii
import math
import re
from typing import Annotated, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from service.api import upload
from service.api.deps import Serving
from service.api.schemas import AnyVerdict, InspectionOut, PageOut, Status, document
from service.db.repository.inspections import Filter
from service.db.tables import FILTERS
from service.errors import InspectionError, problem_docs
from service.metadata import Label, Moment, Name, Traits

router = APIRouter(prefix="/v1/inspections", tags=["inspections"])
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_PREFERENCE = "`wait=N`: answer with the result if it is there within N seconds"


class ListQuery(BaseModel):
    """Filters; all that are given must hold."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=50, ge=1, le=500, description="inspections on a page")
    cursor: str | None = Field(default=None, max_length=128, description="opaque; from `next`")
    status: Status | None = None
    verdict: AnyVerdict | None = None
    recipe: Name | None = None
    line: Label | None = None
    station: Label | None = None
    lot: Label | None = None
    serial: Label | None = None
    part_id: Label | None = None
    model_hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    profile: Name | None = None
    review_state: Literal["none", "good", "defective", "unsure"] | None = None
    disagreement: bool | None = None
    since: Moment | None = Field(default=None, description="created at or after, with time zone")
    until: Moment | None = Field(default=None, description="created before, with time zone")

    def filter(self) -> Filter:
        equal = {name: value for name in FILTERS if (value := getattr(self, name)) is not None}
        return Filter(equal, self.since, self.until)

    def address(self, path: str, before: str) -> str:
        """The address of the page that follows, with the same filters."""
        values = self.model_dump(mode="json", exclude_none=True, exclude={"cursor"})
        return f"{path}?{urlencode({**values, 'cursor': encode_cursor(before)})}"


def encode_cursor(identifier: str) -> str:
    return base64.urlsafe_b64encode(identifier.encode()).decode().rstrip("=")


def decode_cursor(cursor: str | None) -> str | None:
    """The id a cursor stands for; 422 for one that this service did not make."""
    if cursor is None:
        return None
    try:
        identifier = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        identifier = ""
    if not _ID.fullmatch(identifier):
        raise InspectionError(422, "invalid-cursor", "cursor must be taken from `next` of an earlier page")
    return identifier


@router.post(
    "",
    summary="Inspect an image",
    responses={
        200: {"model": InspectionOut, "description": "The inspection has ended"},
        202: {"model": InspectionOut, "description": "Accepted and stored; the result follows at `Location`"},
        **problem_docs(400, 409, 413, 415, 422, 503, 507),
    },
    openapi_extra={"requestBody": upload.REQUEST_BODY},
)
async def post_inspection(
    request: Request,
    response: Response,
    serving: Serving,
    _traits: Annotated[Traits, Query()],
    idempotency_key: Annotated[str | None, Header(description="same key and body: same inspection")] = None,
    prefer: Annotated[str | None, Header(description=_PREFERENCE)] = None,
) -> InspectionOut:
    """Send the image as the body (parameters in the query, also `attr.NAME=VALUE`) or as a form.

    The answer comes when image and row are stored durably: 200 with the result if it is there in time,
    else 202. A verdict of ERROR or EXPIRED is never a PASS.
    """
    key = upload.idempotency_key(idempotency_key)
    if key is None:
        serving.inspector.batcher.check_room()  # refused before the body is read
    data, metadata = await upload.read(request)
    accepted = await serving.inspector.accept(data, metadata, key)
    identifier = accepted.row.id
    asked = upload.preferred_wait_s(prefer)
    wait_s = min(serving.settings.default_wait_s if asked is None else asked, serving.settings.max_wait_s)
    await serving.inspector.wait(identifier, wait_s)
    shown = document(await asyncio.to_thread(serving.ledger.get, identifier))
    response.headers["Location"] = shown.links.self
    if asked is not None:
        response.headers["Preference-Applied"] = f"wait={wait_s:g}"
    if accepted.replayed:
        response.headers["Idempotent-Replayed"] = "true"
    if shown.verdict is None:
        response.status_code = 202
        response.headers["Retry-After"] = str(max(1, math.ceil(serving.inspector.batcher.expected_wait_s())))
    return shown


@router.get("/{identifier}", summary="One inspection", responses=problem_docs(404, 503))
async def get_inspection(identifier: str, serving: Serving) -> InspectionOut:
    """Status, verdict, score, thresholds, regions, model, latency and links."""
    return document(await asyncio.to_thread(serving.ledger.get, identifier))


@router.get("", summary="Inspections, newest first", responses=problem_docs(422, 503))
async def list_inspections(
    response: Response, serving: Serving, query: Annotated[ListQuery, Query()]
) -> PageOut:
    """One page; it does not shift while new inspections arrive."""
    before = decode_cursor(query.cursor)
    page = await asyncio.to_thread(serving.ledger.page, query.filter(), query.limit, before)
    following = query.address(router.prefix, page.next_before) if page.next_before else None
    if following is not None:
        response.headers["Link"] = f'<{following}>; rel="next"'
    return PageOut(items=[document(row) for row in page.rows], next=following)
