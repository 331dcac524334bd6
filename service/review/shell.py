"""What every page for people has: navigation by role, language, theme, and how values are written."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup, escape
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from service.access.principal import Principal, Scope
from service.api.deps import services
from service.errors import InspectionError
from service.review import language

FOLDER = Path(__file__).parent
THEME_COOKIE = "inlier-theme"
THEMES = ("auto", "light", "dark")
_FOR_PROGRAMS = ("/v1/", "/healthz", "/metrics", "/static/", "/openapi.json")
_CODE = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Entry:
    """A page of the navigation; `nav.NAME` of the strings is its title."""

    name: str
    path: str
    scope: Scope = "operator"


NAVIGATION = (
    Entry("overview", "/"),
    Entry("review", "/review"),
    Entry("inspections", "/inspections"),
    Entry("thresholds", "/thresholds"),
    Entry("masks", "/masks"),
    Entry("models", "/models"),
    Entry("try", "/try"),
    Entry("admin", "/admin", "admin"),
    Entry("api", "/docs"),
)
"""The order in which people meet them; a page that does not exist yet has no entry."""


def environment() -> Environment:
    """Templates with escaping on and undefined names as errors."""
    found = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = {
        "ms": _ms,
        "number": _number,
        "share": _share,
        "code": code,
        "lasted": lasted,
        "moment": moment,
    }
    found.filters.update(filters)
    found.globals.update(languages=language.LANGUAGES, themes=THEMES)
    return found


class Static(StaticFiles):
    """Styles and scripts; asked for anew each time, so that no page runs with the scripts of an older one."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response


def code(text: str) -> Markup:
    """Text with `such` parts as code, everything escaped."""
    # A plain string first: Markup would escape the tags that are put in.
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text))))


def moment(value: datetime) -> Markup:
    """A point in time: exact UTC in text and on hover; time.js writes the text in the reader's zone."""
    utc = value.astimezone(UTC)
    exact = utc.strftime("%Y-%m-%d %H:%M:%S UTC")
    stamp = utc.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Markup('<time datetime="{}" title="{}">{}</time>').format(stamp, exact, exact)


def lasted(seconds: float) -> str:
    """A time that something took, in the two largest of its units."""
    whole = max(0, round(seconds))
    for unit, size, small, part in (("d", 86_400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // part} {small}"
    return f"{whole} s"


@pass_context
def _number(context: Context, value: float, digits: int = 2) -> str:
    return _texts(context).number(value, digits)


@pass_context
def _ms(context: Context, value: float) -> str:
    return f"{_texts(context).number(value, 0 if value >= 10 else 1)} ms"


@pass_context
def _share(context: Context, value: float, digits: int = 1) -> str:
    return f"{_texts(context).number(100 * value, digits)} %"


def _texts(context: Context) -> language.Texts:
    found: language.Texts = context["t"]
    return found


def navigation(who: Principal | None) -> list[Entry]:
    """The pages that somebody may open."""
    return [] if who is None else [entry for entry in NAVIGATION if who.may(entry.scope)]


def theme(request: Request) -> str:
    """What the person chose; `auto` follows the system."""
    chosen = request.cookies.get(THEME_COOKIE, "auto")
    return chosen if chosen in THEMES else "auto"


def page(
    request: Request,
    template: str,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    **values: object,
) -> HTMLResponse:
    """A rendered page; besides `values` the template sees what `context` gives to all."""
    html = services(request).pages.get_template(template).render(**context(request), **values)
    return HTMLResponse(html, status, {"Cache-Control": "no-store", **(headers or {})})


def error_page(
    scope: Mapping[str, Any], error: InspectionError, headers: Mapping[str, str]
) -> Response | None:
    """An error as a page, where a browser asked for a page; None: programs get a problem document."""
    request = Request(dict(scope))
    wants = request.method in ("GET", "HEAD") and "text/html" in request.headers.get("accept", "")
    if not wants or request.url.path.startswith(_FOR_PROGRAMS) or not hasattr(request.app.state, "services"):
        return None
    return page(
        request,
        "error.html",
        error.status,
        headers,
        kind=error.status,
        detail=error.detail,
        request_id=getattr(request.state, "request_id", ""),
    )


def context(request: Request) -> dict[str, Any]:
    """`t` (strings), `who` asks (or none), the `csrf` of forms, navigation, theme, model and own address."""
    state, serving = request.state, services(request)
    who: Principal | None = getattr(state, "principal", None)
    return {
        "t": language.texts(request),
        "who": who,
        "may": {scope: who is not None and who.may(scope) for scope in get_args(Scope)},
        "csrf": getattr(state, "csrf", None),
        "model": serving.manifest,
        "entries": navigation(who),
        "theme": theme(request),
        "here": request.url.path + (f"?{request.url.query}" if request.url.query else ""),
    }
