"""Who changed what, and who signed in."""

import asyncio
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from service.access.principal import Admin
from service.api.deps import Serving
from service.db.repository import audit
from service.errors import problem_docs
from service.metadata import Label, Moment, Name

router = APIRouter(prefix="/v1/audit", tags=["access"])


class AuditQuery(BaseModel):
    """Filters; all that are given must hold."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=50, ge=1, le=500, description="entries on a page")
    cursor: UUID | None = Field(default=None, description="id of the entry the page before ended with")
    who: Label | None = None
    action: Name | None = Field(default=None, description="for example `keys.create` or `session.refused`")
    target: Label | None = Field(default=None, description="for example `key/cam1` or `user/eva`")
    since: Moment | None = Field(default=None, description="at or after, with time zone")
    until: Moment | None = Field(default=None, description="before, with time zone")


class AuditOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: str
    at: datetime
    who: str = Field(description="name of the key or person; `inlier-service` for the service itself")
    kind: str = Field(description="key, user or system")
    action: str
    target: str
    detail: dict[str, Any]
    request_id: str | None = Field(
        description="as in X-Request-ID and in the log; null from the command line"
    )
    address: str | None = Field(description="of the client")


class AuditPage(BaseModel):
    items: list[AuditOut]
    next: str | None = Field(description="address of the page that follows, older entries")


@router.get("", summary="The audit log, newest first", responses=problem_docs(422, 503))
async def entries(
    response: Response, serving: Serving, who: Admin, query: Annotated[AuditQuery, Query()]
) -> AuditPage:
    """Entries are written with the change they tell of, and can be neither changed nor removed."""
    wanted = audit.Wanted(query.who, query.action, query.target, query.since, query.until)
    before = None if query.cursor is None else str(query.cursor)

    def run() -> tuple[list[AuditOut], str | None]:
        with serving.database.read() as session:
            rows, following = audit.page(session, wanted, query.limit, before)
            return [AuditOut.model_validate(row) for row in rows], following

    items, following = await asyncio.to_thread(run)
    address = None
    if following is not None:
        given = query.model_dump(mode="json", exclude_none=True, exclude={"cursor"})
        address = f"{router.prefix}?{urlencode({**given, 'cursor': following})}"
        response.headers["Link"] = f'<{address}>; rel="next"'
    return AuditPage(items=items, next=address)
