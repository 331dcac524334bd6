"""Forms of the admin pages: checked by the bodies of the API, with what is wrong beside each field."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import BaseModel

from service.api.bodies import utf8_only
from service.errors import InspectionError, validation_error
from service.review.forms import valid
from service.review.shell import page

Body = TypeVar("Body", bound=BaseModel)
WHOLE = ""
_MOST_FIELDS = 50
# What the API says in its own way of one field.
_FIELDS = {
    "key-exists": "name",
    "name-taken": "name",
    "recipe-exists": "name",
    "unknown-profile": "profile",
    "invalid-schema": "attributes_schema",
    "invalid-address": "url",
    "wrong-kind": "password",
}


@dataclass(frozen=True)
class Filled:
    """One of a page's forms as it was sent, and what is wrong with it."""

    form: str = ""  # which one
    values: Mapping[str, Any] = field(default_factory=dict)
    wrong: Mapping[str, str] = field(default_factory=dict)  # by field; WHOLE: the form
    status: int = 200

    def of(self, form: str) -> "Filled":
        """What concerns this form of the page."""
        return self if form == self.form else UNTOUCHED


UNTOUCHED = Filled()


async def sent(request: Request) -> dict[str, str]:
    """The fields of a form; of a name that is there several times, the last."""
    utf8_only(request)
    async with request.form(max_files=0, max_fields=_MOST_FIELDS) as form:
        return {name: value.strip() for name, value in form.items() if isinstance(value, str)}


async def chosen(request: Request, name: str) -> list[str]:
    """The values of checkboxes that share a name."""
    utf8_only(request)
    async with request.form(max_files=0, max_fields=_MOST_FIELDS) as form:
        return [value for value in form.getlist(name) if isinstance(value, str)]


def checked(body: type[Body], values: Mapping[str, Any]) -> Body:
    """The form as a body of the API, which in a form is all text; InspectionError 422."""
    return valid(body, values, strict=False)


def given(values: Mapping[str, str], *names: str) -> dict[str, str]:
    """Those of the fields that somebody filled in."""
    return {name: values[name] for name in names if values.get(name)}


def json_object(values: Mapping[str, str], name: str) -> Any:
    """A field that holds JSON; None if it is empty. InspectionError 422 says where it is wrong."""
    if not values.get(name):
        return None
    try:
        return json.loads(values[name])
    except (ValueError, RecursionError) as error:
        raise validation_error([{"loc": (name,), "msg": f"this is no JSON: {error}"}]) from None


def refused(form: str, values: Mapping[str, Any], error: InspectionError) -> Filled:
    """The form with what the API said about it."""
    items = [(str(item["location"]).split("."), item["message"]) for item in error.extra.get("errors", ())]
    wrong = {next((part for part in place if part in values), WHOLE): text for place, text in items}
    if not wrong:
        name = _FIELDS.get(error.code, WHOLE)
        wrong = {name if name in values else WHOLE: error.detail}
    return Filled(form, values, wrong, error.status)


def admin_page(request: Request, template: str, filled: Filled, **values: object) -> HTMLResponse:
    """A page of the administration; `done` in the query says what has just been done."""
    done = request.query_params.get("done", "") if request.method == "GET" else ""
    return page(request, f"admin/{template}", filled.status, None, filled=filled, done=done, **values)


def back(path: str, done: str) -> RedirectResponse:
    """After a change: to the page, which says that it is done (`admin.done_...` of the strings)."""
    return RedirectResponse(f"{path}?{urlencode({'done': done})}", 303)
