"""Recipes: what is set of each product."""

import json
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from service.access.principal import Admin, Principal
from service.api import recipes as api
from service.api.deps import RecipeName, Services, Serving
from service.api.recipes import RecipeIn, RecipeOut, RecipePatch
from service.errors import InspectionError, validation_error
from service.review.admin.forms import (
    UNTOUCHED,
    Filled,
    admin_page,
    back,
    checked,
    json_object,
    refused,
    sent,
)

router = APIRouter(include_in_schema=False)
_PATH = "/admin/recipes"
_SHOWN = 100
_NEW = {**dict.fromkeys(RecipePatch.model_fields), "audit_rate": "2"}  # the form of a new recipe


@router.get("/admin")
async def first(who: Admin) -> RedirectResponse:
    return RedirectResponse(_PATH, 303)


@router.get(_PATH)
async def shown(
    request: Request, serving: Serving, who: Admin, archived: bool = False, after: str = ""
) -> HTMLResponse:
    return await _list(request, serving, who, archived=archived, after=after[:64])


@router.post(_PATH)
async def create(request: Request, serving: Serving, who: Admin) -> Response:
    values = await sent(request)
    try:
        wanted = checked(RecipeIn, {"name": values.get("name", ""), **_traits(values)})
        made = await api.create_recipe(wanted, Response(), serving, who)
    except InspectionError as error:
        return await _list(request, serving, who, refused("create", values, error))
    return back(f"{_PATH}/{made.name}", "created")


@router.get(f"{_PATH}/{{recipe}}")
async def one(request: Request, recipe: RecipeName, serving: Serving, who: Admin) -> HTMLResponse:
    return await _edit(request, recipe, serving, who)


@router.post(f"{_PATH}/{{recipe}}")
async def change(request: Request, recipe: RecipeName, serving: Serving, who: Admin) -> Response:
    """409, with everything that was typed, when somebody changed the recipe meanwhile."""
    values = await sent(request)
    try:
        wanted = checked(RecipePatch, {"revision": values.get("revision"), **_traits(values)})
        await api.change_recipe(recipe, wanted, Response(), serving, who)
    except InspectionError as error:
        return await _edit(request, recipe, serving, who, refused("change", values, error))
    return back(f"{_PATH}/{recipe}", "changed")


@router.post(f"{_PATH}/{{recipe}}/archive")
async def archive(request: Request, recipe: RecipeName, serving: Serving, who: Admin) -> Response:
    """Out of use, or with `archived=false` into it again."""
    archived = (await sent(request)).get("archived") != "false"
    try:
        current = await api.get_recipe(recipe, Response(), serving, who)
        wanted = RecipePatch(revision=current.revision, archived=archived)
        await api.change_recipe(recipe, wanted, Response(), serving, who)
    except InspectionError as error:
        return await _edit(request, recipe, serving, who, refused("archive", {}, error))
    return back(f"{_PATH}/{recipe}", "archived" if archived else "restored")


def _traits(values: Mapping[str, str]) -> dict[str, Any]:
    """The fields of the form as the API has them: nothing for what is empty, shares for percentages."""
    optional = ("product", "profile", "latency_budget_ms", "retention_days")
    return {
        **{name: values.get(name) or None for name in optional},
        "description": values.get("description", ""),
        "audit_rate": _share(values),
        "reasons": [line.strip() for line in values.get("reasons", "").splitlines() if line.strip()],
        "attributes_schema": json_object(values, "attributes_schema"),
    }


def _share(values: Mapping[str, str]) -> float:
    try:
        return float(values.get("audit_rate", "").replace(",", ".") or 0) / 100
    except ValueError:
        raise validation_error([{"loc": ("audit_rate",), "msg": "write a percentage, as 2.5"}]) from None


def _typed(recipe: RecipeOut) -> dict[str, Any]:
    """A recipe as its form shows it."""
    schema = recipe.attributes_schema
    return {
        **recipe.model_dump(),
        "audit_rate": f"{100 * recipe.audit_rate:g}",
        "reasons": "\n".join(recipe.reasons),
        "attributes_schema": "" if schema is None else json.dumps(schema, indent=2, ensure_ascii=False),
    }


async def _list(
    request: Request,
    serving: Services,
    who: Principal,
    filled: Filled = UNTOUCHED,
    *,
    archived: bool = False,
    after: str = "",
) -> HTMLResponse:
    found = await api.list_recipes(serving, who, archived, after, _SHOWN)
    return admin_page(
        request,
        "recipes.html",
        filled,
        items=[(item, serving.engines.serving(item.name).manifest) for item in found.items],
        following=found.next and found.next.replace(api.router.prefix, _PATH),
        archived=archived,
        profiles=sorted(serving.manifest.profiles),
        typed=_NEW,
    )


async def _edit(
    request: Request, recipe: str, serving: Services, who: Principal, filled: Filled = UNTOUCHED
) -> HTMLResponse:
    found = await api.get_recipe(recipe, Response(), serving, who)
    manifest = serving.engines.serving(recipe).manifest
    return admin_page(
        request,
        "recipe.html",
        filled,
        recipe=found,
        typed=_typed(found),
        manifest=manifest,
        profiles=sorted(manifest.profiles),
    )
