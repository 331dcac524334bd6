"""Signing in and out, and who one is."""

import asyncio
from datetime import datetime

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from service.access import browser, passwords
from service.access.callers import Caller
from service.access.principal import Camera
from service.access.signin import SignedIn
from service.api.bodies import Body
from service.api.deps import Services, Serving
from service.errors import problem_docs
from service.metadata import Label

router = APIRouter(prefix="/v1/session", tags=["access"])


class SignInIn(Body):
    name: Label
    password: str = Field(max_length=passwords.MAX_LENGTH, json_schema_extra={"writeOnly": True})


class SessionOut(BaseModel):
    name: str
    scope: str = Field(description="camera, operator or admin")
    kind: str = Field(description="key or user; system while `auth` is off")
    csrf: str | None = Field(description="send it as X-CSRF-Token with every change; null without a cookie")
    expires_at: datetime | None


@router.post("", status_code=201, summary="Sign in", responses=problem_docs(401, 403, 422, 503))
async def sign_in(body: SignInIn, request: Request, response: Response, serving: Serving) -> SessionOut:
    """Sets the session cookie. An unknown name and a wrong password get the same answer."""
    signed = await signed_in(request, serving, body.name, body.password)
    caller = await remember(serving, request, response, signed)
    return _document(caller)


@router.get("", summary="Who am I?", responses=problem_docs(503))
async def current(request: Request, response: Response, who: Camera) -> SessionOut:
    """Of a key, too."""
    response.headers["Cache-Control"] = "no-store"
    return _document(request.state.caller)


@router.delete("", status_code=204, summary="Sign out", responses=problem_docs(503))
async def sign_out(request: Request, response: Response, serving: Serving, who: Camera) -> None:
    """Ends the session of the cookie; a key has none, and stays valid."""
    await forget(serving, request, response)


async def signed_in(request: Request, serving: Services, name: str, password: str) -> SignedIn:
    """A session for a name and its password, if it may be sent here and was not tried too often."""
    check(request, serving)
    return await asyncio.to_thread(serving.access.signin.with_password, name, password)


def check(request: Request, serving: Services) -> None:
    """Whatever signs in somebody crosses no network in clear text, and not too often from one address."""
    browser.check_transport(request, serving.settings.sign_in_over_http)
    serving.access.count_sign_in(request.client.host if request.client else "")


async def remember(serving: Services, request: Request, response: Response, signed: SignedIn) -> Caller:
    """Put the session into the browser's cookie."""
    caller = await serving.access.callers.by_session(signed.token)
    assert caller is not None, "a session that was just opened is found"
    browser.set_session(response, request, signed.token, round(serving.settings.session_hours * 3600))
    response.headers["Cache-Control"] = "no-store"
    return caller


async def forget(serving: Services, request: Request, response: Response) -> None:
    """End the caller's session, if it came with one."""
    caller: Caller = request.state.caller
    if caller.session is not None:
        await asyncio.to_thread(serving.access.signin.out, caller.session, caller.principal)
        serving.access.callers.forget()
        browser.clear_session(response, request)


def _document(caller: Caller) -> SessionOut:
    who = caller.principal
    return SessionOut(
        name=who.name, scope=who.scope, kind=who.kind, csrf=caller.csrf, expires_at=caller.expires_at
    )
