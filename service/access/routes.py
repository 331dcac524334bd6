"""What each route asks for: a scope, or nothing if it is on the list; who says nothing lets nobody in."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.routing import Match
from starlette.types import Scope as AsgiScope

from service.access.principal import Scope

PUBLIC = frozenset(
    {
        "GET /healthz/live",
        "GET /healthz/ready",
        "GET /signin",
        "POST /signin",
        "POST /signin/link",
        "POST /signin/first",
        "POST /v1/session",
        "* /static",
    }
)
"""Everything that anybody may ask for, signed in or not."""


@dataclass(frozen=True)
class Declared:
    """A route and the scope it declares; None: it declares nothing, so nobody gets in."""

    path: str
    methods: frozenset[str]  # empty: all
    scope: Scope | Literal["public"] | None
    page: bool  # for people: not part of the API's description
    _route: Any

    def matches(self, scope: AsgiScope) -> Match:
        match: Match = self._route.matches(scope)[0]
        return match


def declarations(app: FastAPI) -> list[Declared]:
    """Every route of the app, in the order in which it tries them."""
    return [_declared(route) for route in iter_route_contexts(app.routes)]


def _declared(route: Any) -> Declared:
    methods = frozenset(getattr(route, "methods", None) or ())
    path = str(getattr(route, "path", ""))
    names = {f"{method} {path}" for method in methods - {"HEAD"} or {"*"}}
    scope: Scope | Literal["public"] | None = next(_scopes(getattr(route, "dependant", None)), None)
    if scope is None and names <= PUBLIC:
        scope = "public"
    return Declared(path, methods, scope, not getattr(route, "include_in_schema", False), route)


def _scopes(dependant: Any) -> Iterator[Scope]:
    """The scopes of `require` among the dependencies of a route, at any depth."""
    for inner in getattr(dependant, "dependencies", ()):
        if (found := getattr(inner.call, "scope", None)) is not None:
            yield found
        yield from _scopes(inner)
