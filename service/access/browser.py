"""Browsers: cookies, requests forged by other sites, and where to go after signing in."""

from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection
from starlette.responses import Response

from service.errors import InspectionError

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_SECURE_NAME = "__Host-inlier"  # browsers take it over https only, from this host, for all paths
_PLAIN_NAME = "inlier"


def session_token(connection: HTTPConnection) -> str | None:
    """The session cookie of the request."""
    jar: SimpleCookie = SimpleCookie()
    try:
        jar.load(connection.headers.get("cookie", ""))
    except CookieError:
        return None
    found = jar.get(_name(connection))
    return None if found is None else found.value


def set_session(response: Response, connection: HTTPConnection, token: str, max_age_s: int) -> None:
    response.set_cookie(
        _name(connection),
        token,
        max_age=max_age_s,
        path="/",
        secure=_secure(connection),
        httponly=True,
        samesite="lax",  # links in messages must work; changes need the CSRF token
    )


def clear_session(response: Response, connection: HTTPConnection) -> None:
    response.delete_cookie(
        _name(connection), path="/", secure=_secure(connection), httponly=True, samesite="lax"
    )


def check_transport(connection: HTTPConnection, over_http: bool) -> None:
    """403 where a password or cookie would cross a network in clear text."""
    if not (over_http or _secure(connection) or connection.url.hostname in LOOPBACK):
        detail = "people sign in over https, or on this machine; see the reverse proxy in docs/security.md"
        raise InspectionError(403, "https-needed", detail)


def check_origin(headers: Mapping[str, str]) -> None:
    """403 for a change asked for by a page of another site; programs send none of these headers."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        foreign = site not in ("same-origin", "none")
    else:
        foreign = origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower()
    if foreign:
        raise InspectionError(403, "foreign-origin", "a page of another site asked for this change")


def safe_next(path: str) -> str:
    """Where to go after signing in: a path on this service, whatever was asked for."""
    plain = path.isprintable() and "\\" not in path
    return path if plain and path.startswith("/") and not path.startswith("//") else "/inspections"


def _secure(connection: HTTPConnection) -> bool:
    return connection.url.scheme == "https"


def _name(connection: HTTPConnection) -> str:
    return _SECURE_NAME if _secure(connection) else _PLAIN_NAME
