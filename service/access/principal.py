"""Whoever makes a request, and the scope a route asks for."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import Depends, Request

from service.errors import InspectionError

Scope = Literal["camera", "operator", "admin"]
SCOPES: tuple[Scope, ...] = ("camera", "operator", "admin")
"""Each may do what the ones before it may."""


@dataclass(frozen=True)
class Principal:
    """A machine with a key, a signed-in person, or the service itself."""

    name: str
    scope: Scope
    kind: Literal["key", "user", "system"]

    def may(self, scope: Scope) -> bool:
        return SCOPES.index(self.scope) >= SCOPES.index(scope)


SYSTEM = Principal("inlier-service", "admin", "system")
ANYBODY = Principal("anybody", "admin", "system")
"""Who asks while `auth` is off."""


def forbidden(principal: Principal, scope: Scope) -> InspectionError:
    """403: known, and not allowed."""
    what = {"key": "this key", "user": "this user", "system": "this caller"}[principal.kind]
    detail = f"this call needs the scope {scope}, and {what} has {principal.scope}"
    return InspectionError(403, "not-allowed", detail)


def unauthenticated(detail: str, *, wrong: bool = False) -> InspectionError:
    """401 with the challenge of RFC 6750; `wrong` if something was presented."""
    challenge = 'Bearer realm="inlier"' + (', error="invalid_token"' if wrong else "")
    return InspectionError(401, "not-authenticated", detail, headers={"WWW-Authenticate": challenge})


def require(scope: Scope) -> Callable[[Request], Awaitable[Principal]]:
    """A dependency: the principal of the request, who has at least this scope.

    The gate reads `scope` off the route and refuses others before the body is read; this is the second lock.
    """

    async def principal(request: Request) -> Principal:
        found: Principal | None = getattr(request.state, "principal", None)
        if found is None:
            raise unauthenticated("sign in, or send a key as `Authorization: Bearer inl_...`")
        if not found.may(scope):
            raise forbidden(found, scope)
        return found

    principal.scope = scope  # type: ignore[attr-defined]  # read by the gate
    return principal


Camera = Annotated[Principal, Depends(require("camera"))]
Operator = Annotated[Principal, Depends(require("operator"))]
Admin = Annotated[Principal, Depends(require("admin"))]
