"""People: added, given another role or password, kept out and let in again."""

from datetime import UTC, datetime
from typing import get_args

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from service.access.principal import Admin, Principal
from service.api import users as api
from service.api.deps import Services, Serving
from service.api.users import UserChange, UserIn, UserName
from service.db.repository.users import Role
from service.errors import InspectionError
from service.review.admin.forms import UNTOUCHED, Filled, admin_page, back, checked, given, refused, sent

router = APIRouter(prefix="/admin/users", include_in_schema=False)


@router.get("")
async def shown(request: Request, serving: Serving, who: Admin) -> HTMLResponse:
    return await _page(request, serving, who)


@router.post("")
async def create(request: Request, serving: Serving, who: Admin) -> Response:
    values = await sent(request)
    try:
        await api.add(checked(UserIn, given(values, "name", "role", "password")), serving, who)
    except InspectionError as error:
        return await _page(request, serving, who, refused("create", values, error))
    return back(router.prefix, "added")


@router.post("/{name}/change")
async def change(name: UserName, request: Request, serving: Serving, who: Admin) -> Response:
    """One of role, password and disabled; whoever is changed is signed out everywhere."""
    values = await sent(request)
    try:
        wanted = checked(UserChange, given(values, "role", "password", "disabled"))
        _check_own(name, wanted, who)
        await api.change(name, wanted, serving, who)
    except InspectionError as error:
        return await _page(request, serving, who, refused(f"change-{name.lower()}", values, error))
    return back(router.prefix, "changed")


def _check_own(name: str, wanted: UserChange, who: Principal) -> None:
    """Nobody locks themselves out by a slip."""
    if who.kind == "user" and name.lower() == who.name and (wanted.disabled or wanted.role == "operator"):
        detail = "you would lock yourself out; another admin can do that"
        raise InspectionError(409, "own-account", detail)


async def _page(
    request: Request, serving: Services, who: Principal, filled: Filled = UNTOUCHED
) -> HTMLResponse:
    items = await api.everyone(serving, who)
    now = datetime.now(UTC)
    return admin_page(request, "users.html", filled, items=items, roles=get_args(Role), now=now)
