"""Keys of machines: made, rotated, revoked; a key is in the answer to its making, and nowhere else."""

from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import HTMLResponse

from service.access.principal import SCOPES, Admin, Principal
from service.api import keys as api
from service.api.deps import Services, Serving
from service.api.keys import KeyIn, NewKeyOut, RotationIn
from service.errors import InspectionError
from service.metadata import Name
from service.review.admin.forms import UNTOUCHED, Filled, admin_page, back, checked, given, refused, sent

router = APIRouter(prefix="/admin/keys", include_in_schema=False)
_DAYS = (30, 90, 365, 730)


@router.get("")
async def shown(request: Request, serving: Serving, who: Admin) -> HTMLResponse:
    return await _page(request, serving, who)


@router.post("")
async def create(request: Request, serving: Serving, who: Admin) -> HTMLResponse:
    """The answer is the page with the key in it: a redirect would have to carry the key in its address."""
    values = await sent(request)
    try:
        wanted = {**given(values, "name", "scope"), "expires_at": _end(values.get("days", ""))}
        made = await api.create(checked(KeyIn, wanted), Response(), serving, who)
    except InspectionError as error:
        return await _page(request, serving, who, refused("create", values, error))
    return await _page(request, serving, who, made=made)


@router.post("/{name}/rotate")
async def rotate(
    name: Annotated[Name, Path()], request: Request, serving: Serving, who: Admin
) -> HTMLResponse:
    values = await sent(request)
    try:
        wanted = checked(RotationIn, given(values, "overlap_hours"))
        made = await api.rotate(name, wanted, Response(), serving, who)
    except InspectionError as error:
        return await _page(request, serving, who, refused(f"rotate-{name}", values, error))
    return await _page(request, serving, who, made=made)


@router.post("/{identifier}/revoke")
async def revoke(identifier: UUID, serving: Serving, who: Admin) -> Response:
    await api.revoke(identifier, serving, who)
    return back(router.prefix, "revoked")


def _end(days: str) -> datetime | None:
    return datetime.now(UTC) + timedelta(days=int(days)) if days in map(str, _DAYS) else None


async def _page(
    request: Request,
    serving: Services,
    who: Principal,
    filled: Filled = UNTOUCHED,
    made: NewKeyOut | None = None,
) -> HTMLResponse:
    items = await api.everything(serving, who)
    return admin_page(
        request,
        "keys.html",
        filled,
        valid=[item for item in items if item.valid],
        ended=[item for item in items if not item.valid],
        made=made,
        scopes=SCOPES,
        days=_DAYS,
    )
