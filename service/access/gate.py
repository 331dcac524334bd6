"""The one way in: every request is matched to its route and refused unless the route lets its caller in."""

import logging
from collections.abc import Iterable
from urllib.parse import parse_qs, quote

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection, Request
from starlette.responses import RedirectResponse
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.access import browser, tokens
from service.access.access import Access
from service.access.callers import Caller
from service.access.principal import forbidden, unauthenticated
from service.access.routes import Declared, declarations
from service.errors import InspectionError, not_found, wrong_method

log = logging.getLogger(__name__)
_FORM = "application/x-www-form-urlencoded"
_MAX_FORM_BYTES = 64 * 1024
_WRONG_KEY = "the key is unknown, expired or revoked"
_NO_KEY = "sign in, or send a key as `Authorization: Bearer inl_...`"


class Gate:
    """Default deny, before the body is read: 401, 403 or 429 as a problem, or the sign-in page for a browser.

    What it finds is in the request's state: `principal`, and `csrf` for the forms of a signed-in person.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._routes: list[Declared] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            # Nothing here speaks WebSocket; the lifespan is entered elsewhere.
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        if self._routes is None:
            self._routes = declarations(scope["app"])
        route = _matching(self._routes, scope)
        scope["route"] = route  # for metrics, should the router never see it
        access: Access = scope["app"].state.services.access
        if route.scope == "public":
            access.count(_address(scope), quiet=route.path.startswith(("/healthz", "/static")))
            _check_forgery(scope)
        else:
            try:
                caller = await self._caller(access, route, scope)
            except InspectionError as error:
                if error.status != 401 or not _wants_page(route, scope):
                    raise
                await _to_sign_in(scope)(scope, receive, send)
                return
            receive = await _check_change(caller, scope, receive)
            scope["state"].update(principal=caller.principal, csrf=caller.csrf, caller=caller)
        await self._app(scope, receive, send)

    async def _caller(self, access: Access, route: Declared, scope: Scope) -> Caller:
        if route.scope is None or route.scope == "public":
            log.error("the route %r declares no scope, so nobody may use it", route.path)
            raise InspectionError(403, "not-declared", "nobody may make this call: it declares no scope")
        caller = access.anybody(route.path) or await _authenticated(access, scope)
        if not caller.principal.may(route.scope):
            raise forbidden(caller.principal, route.scope)
        access.count(caller.counted_as or _address(scope))
        return caller


def _matching(routes: Iterable[Declared], scope: Scope) -> Declared:
    """The route the router will choose; 404 and 405 are ours to say, so that nothing passes undecided."""
    allowed: set[str] = set()
    # A path that is written out in full is never somebody's id: /v1/models/rollback is no model.
    routes = [route for route in routes if route.path == scope["path"]] or routes
    for route in routes:
        match = route.matches(scope)
        if match == Match.FULL:
            return route
        if match == Match.PARTIAL:
            scope["route"] = route
            allowed |= route.methods
    if allowed:
        raise wrong_method(scope["method"], scope["path"], allowed)
    raise not_found(scope["path"])


async def _authenticated(access: Access, scope: Scope) -> Caller:
    connection = HTTPConnection(scope)
    key = _presented_key(connection.headers)
    if key is not None:
        caller = await access.callers.by_key(key)
        if caller is None:
            # A wrong key costs only its sender: a right one from the same address is never held up.
            access.count_failure(_address(scope))
            raise unauthenticated(_WRONG_KEY, wrong=True)
        return caller
    token = browser.session_token(connection)
    caller = None if token is None else await access.callers.by_session(token)
    if caller is None:
        access.count_failure(_address(scope))
        raise unauthenticated(_NO_KEY)
    return caller


def _presented_key(headers: Headers) -> str | None:
    """The key of `Authorization: Bearer` or `X-API-Key`; any other kind of authorization is a wrong key."""
    given = headers.get("authorization")
    if given is None:
        return headers.get("x-api-key")
    scheme, _, key = given.partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def _check_forgery(scope: Scope) -> None:
    if scope["method"] not in browser.SAFE_METHODS:
        browser.check_origin(Headers(scope=scope))


async def _check_change(caller: Caller, scope: Scope, receive: Receive) -> Receive:
    """403 for a change that comes with a cookie and without its CSRF token -> what gives the body."""
    if scope["method"] in browser.SAFE_METHODS or caller.principal.kind == "key":
        return receive
    headers = Headers(scope=scope)
    browser.check_origin(headers)
    if caller.csrf is None:  # nobody signs in while `auth` is off
        return receive
    given = headers.get("x-csrf-token")
    if given is None and headers.get("content-type", "").partition(";")[0].strip().lower() == _FORM:
        given, receive = await _form_token(scope, receive)
    if given is None or not tokens.same(given, caller.csrf):
        detail = "send the CSRF token of your session (GET /v1/session tells it) as X-CSRF-Token"
        raise InspectionError(403, "csrf", detail)
    return receive


async def _form_token(scope: Scope, receive: Receive) -> tuple[str | None, Receive]:
    """The form's field `csrf` -> it, and a receive that gives the body once more."""
    body = b""
    async for chunk in Request(scope, receive).stream():
        body += chunk
        if len(body) > _MAX_FORM_BYTES:
            detail = f"a form has at most {_MAX_FORM_BYTES} bytes; send more with X-CSRF-Token"
            raise InspectionError(413, "body-too-large", detail)
    replayed = False

    async def again() -> Message:
        nonlocal replayed
        if replayed:
            return await receive()
        replayed = True
        return {"type": "http.request", "body": body, "more_body": False}

    fields = parse_qs(body.decode("utf-8", "replace"))
    return fields.get("csrf", [None])[0], again


def _wants_page(route: Declared, scope: Scope) -> bool:
    html = "text/html" in Headers(scope=scope).get("accept", "")
    return route.page and html and scope["method"] in ("GET", "HEAD")


def _to_sign_in(scope: Scope) -> RedirectResponse:
    query = scope["query_string"].decode("latin-1")
    asked = scope["path"] + (f"?{query}" if query else "")
    return RedirectResponse(f"/signin?next={quote(asked, safe='/')}", 303, {"Cache-Control": "no-store"})


def _address(scope: Scope) -> str:
    return f"address:{scope['client'][0]}" if scope.get("client") else "address:"
