"""Keys of machines: made, rotated, revoked. The key itself is in one answer, once."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from service.access.principal import Admin, Scope
from service.api.bodies import Body
from service.api.deps import Services, Serving
from service.db.repository import keys
from service.db.tables import ApiKeyRow
from service.errors import InspectionError, problem_docs
from service.metadata import Moment, Name

router = APIRouter(prefix="/v1/keys", tags=["access"])
_MOST_OVERLAP_HOURS = 24 * 90


class KeyOut(BaseModel):
    id: str
    name: str = Field(description="shown as `who` in what the key changes")
    scope: str = Field(
        description="camera: post and read inspections; operator: also review; admin: everything"
    )
    prefix: str = Field(description="the first characters, to tell keys apart")
    valid: bool = Field(description="neither expired nor revoked")
    created_by: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(description="to the minute")


class NewKeyOut(KeyOut):
    key: str = Field(description="the key; it is not stored and never shown again")


class KeyIn(Body):
    name: Name = Field(description="what it is for: a camera, a gateway")
    scope: Scope
    expires_at: Moment | None = Field(default=None, description="when it ends, with time zone")


class RotationIn(Body):
    overlap_hours: float = Field(
        default=24.0,
        ge=0,
        le=_MOST_OVERLAP_HOURS,
        description="how long the old key stays valid beside the new",
    )
    expires_at: Moment | None = Field(default=None, description="when the new key ends, with time zone")


def document(row: ApiKeyRow) -> KeyOut:
    valid = keys.valid(row, datetime.now(UTC))
    return KeyOut.model_validate({**_fields(row), "valid": valid})


def _fields(row: ApiKeyRow) -> dict[str, object]:
    return {name: getattr(row, name) for name in KeyOut.model_fields if name != "valid"}


@router.post("", status_code=201, summary="Make a key", responses=problem_docs(409, 422, 503))
async def create(body: KeyIn, response: Response, serving: Serving, who: Admin) -> NewKeyOut:
    """The answer holds the key, this once. A name has one valid key: rotate it to get a second."""
    _check_future(body.expires_at)
    return await _made(
        serving, response, lambda session: keys.create(session, who, body.name, body.scope, body.expires_at)
    )


@router.get("", summary="All keys", responses=problem_docs(503))
async def everything(serving: Serving, who: Admin) -> list[KeyOut]:
    """Also those that have ended; never the keys themselves."""

    def run() -> list[KeyOut]:
        with serving.database.read() as session:
            return [document(row) for row in keys.everything(session)]

    return await asyncio.to_thread(run)


@router.post(
    "/{name}/rotate", status_code=201, summary="Replace a key", responses=problem_docs(404, 409, 422, 503)
)
async def rotate(
    name: Annotated[Name, Path()], body: RotationIn, response: Response, serving: Serving, who: Admin
) -> NewKeyOut:
    """A second key under the same name; both are valid until the overlap is over."""
    _check_future(body.expires_at)
    overlap = timedelta(hours=body.overlap_hours)
    return await _made(
        serving, response, lambda session: keys.rotate(session, who, name, overlap, body.expires_at)
    )


@router.delete("/{identifier}", summary="Revoke a key", responses=problem_docs(404, 422, 503))
async def revoke(identifier: UUID, serving: Serving, who: Admin) -> KeyOut:
    """At once here, within five seconds in other processes. Revoking it again changes nothing."""

    def run() -> KeyOut:
        with serving.database.write() as session:
            row = keys.get(session, str(identifier))
            keys.revoke(session, who, [row])
            return document(row)

    shown = await asyncio.to_thread(run)
    serving.access.callers.forget()
    return shown


async def _made(
    serving: Services, response: Response, make: Callable[[Session], tuple[ApiKeyRow, str]]
) -> NewKeyOut:
    def run() -> NewKeyOut:
        with serving.database.write() as session:
            row, key = make(session)
            return NewKeyOut.model_validate({**document(row).model_dump(), "key": key})

    made = await asyncio.to_thread(run)
    serving.access.callers.forget()
    response.headers["Cache-Control"] = "no-store"
    return made


def _check_future(moment: datetime | None) -> None:
    if moment is not None and moment <= datetime.now(UTC):
        raise InspectionError(422, "already-expired", "expires_at lies in the past; the key would never work")
