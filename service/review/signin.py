"""The pages for signing in and out; they work without scripts."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import BaseModel, Field

from service.access import passwords
from service.access.browser import safe_next
from service.access.principal import Camera
from service.access.signin import SignedIn
from service.api import session
from service.api.deps import Services, Serving
from service.errors import InspectionError
from service.metadata import Label, Name
from service.review.shell import page

router = APIRouter(include_in_schema=False)
_NEXT = "/"


class PasswordForm(BaseModel):
    name: Label
    password: str = Field(max_length=passwords.MAX_LENGTH)
    next: str = _NEXT


class LinkForm(BaseModel):
    link: str = Field(max_length=128)
    next: str = _NEXT


class FirstForm(BaseModel):
    token: str = Field(max_length=128)
    name: Name
    password: str = Field(max_length=passwords.MAX_LENGTH)


@router.get("/signin")
async def form(request: Request, serving: Serving, next: str = _NEXT, link: str = "") -> HTMLResponse:
    """The form that fits: with a password, with a link, or for the first admin."""
    return await _form(request, serving, next=safe_next(next), link=link[:128])


@router.post("/signin")
async def with_password(
    request: Request, serving: Serving, sent: Annotated[PasswordForm, Form()]
) -> Response:
    try:
        signed = await session.signed_in(request, serving, sent.name, sent.password)
    except InspectionError as error:
        return await _form(request, serving, error, next=safe_next(sent.next), name=sent.name)
    return await _enter(request, serving, signed, sent.next)


@router.post("/signin/link")
async def with_link(request: Request, serving: Serving, sent: Annotated[LinkForm, Form()]) -> Response:
    # The link itself changes nothing: mail scanners and previews open links, too.
    try:
        session.check(request, serving)
        signed = await asyncio.to_thread(serving.access.signin.with_link, sent.link)
    except InspectionError as error:
        return await _form(request, serving, error, next=safe_next(sent.next))
    return await _enter(request, serving, signed, sent.next)


@router.post("/signin/first")
async def first_admin(request: Request, serving: Serving, sent: Annotated[FirstForm, Form()]) -> Response:
    token = sent.token.strip()
    try:
        session.check(request, serving)
        signed = await asyncio.to_thread(serving.access.signin.first_admin, token, sent.name, sent.password)
    except InspectionError as error:
        return await _form(request, serving, error, name=sent.name)
    serving.access.callers.forget()
    return await _enter(request, serving, signed, _NEXT)


@router.post("/signout")
async def sign_out(request: Request, serving: Serving, who: Camera) -> Response:
    response = RedirectResponse("/signin", 303)
    await session.forget(serving, request, response)
    return response


async def _form(
    request: Request,
    serving: Services,
    error: InspectionError | None = None,
    *,
    next: str = _NEXT,
    link: str = "",
    name: str = "",
) -> HTMLResponse:
    first = await asyncio.to_thread(serving.access.signin.untouched)
    status, headers = (200, {}) if error is None else (error.status, error.headers)
    problem = "" if error is None else error.detail
    shown = {"first": first, "next": next, "link": link, "name": name, "problem": problem}
    return page(request, "signin.html", status, headers, **shown)


async def _enter(request: Request, serving: Services, signed: SignedIn, next: str) -> Response:
    response = RedirectResponse(safe_next(next), 303)
    await session.remember(serving, request, response, signed)
    return response
