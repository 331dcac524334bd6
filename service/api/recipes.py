"""Recipes: the products that are inspected, and what applies to each."""

import asyncio
import re
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response
from pydantic import AfterValidator, BaseModel, Field

from service.access.principal import Admin, Operator
from service.api.bodies import Body
from service.api.deps import RecipeName, Services, Serving
from service.db.tables import RecipeRow
from service.errors import InspectionError, problem_docs
from service.metadata import PLAIN, WHOLE, Label, Name, ProfileName
from service.recipes.book import RecipeBook

router = APIRouter(prefix="/v1/recipes", tags=["recipes"])
_ETAG = re.compile(r'(?:W/)?"(\d{1,9})"')
_IF_MATCH: dict[str, Any] = {"pattern": r"""^(W/)?"[0-9]{1,9}"$""", "examples": ['"3"']}
_LARGEST = 2**31 - 1
Revision = Annotated[int, Field(ge=1, le=_LARGEST), WHOLE]


def _unique(values: list[str]) -> list[str]:
    if len(set(values)) < len(values):
        raise ValueError("each reason may be given once")
    return values


Budget = Annotated[int, Field(ge=1, le=86_400_000), WHOLE]
Days = Annotated[int, Field(ge=1, le=36_500), WHOLE]
Reasons = Annotated[
    list[Name], Field(max_length=20, json_schema_extra={"uniqueItems": True}), AfterValidator(_unique)
]


class Traits(Body):
    """What can be set of a recipe."""

    product: Label | None = Field(default=None, description="part number or name of the product")
    description: Annotated[str, Field(max_length=4096, pattern=r"^[^\x00]*$")] = ""
    profile: ProfileName | None = Field(
        default=None, description="reconstruction profile [default: the service's]; one of the active bundle"
    )
    latency_budget_ms: Budget | None = Field(
        default=None, description="from acceptance; what takes longer is EXPIRED"
    )
    retention_days: Days | None = Field(
        default=None, description="how long inspections are kept; null: forever"
    )
    audit_rate: float = Field(
        default=0.02, ge=0, le=1, description="share of PASS that a person looks at, drawn at random"
    )
    reasons: Reasons = Field(default=[], description="reason codes of reviews, in the order of their keys")
    attributes_schema: dict[str, Any] | None = Field(
        default=None, description="JSON Schema (draft 2020-12) that the attributes of inspections must match"
    )


class RecipeIn(Traits):
    """A new recipe."""

    name: Name = Field(description="what images are posted with: `?recipe=NAME`; never changes")


class RecipePatch(Body):
    """What is given is changed; `revision` (or the header If-Match) says what the change is based on."""

    revision: Revision | None = None
    archived: bool | None = Field(default=None, description="false takes an archived recipe into use again")
    product: Label | None = None
    description: Annotated[str, Field(max_length=4096, pattern=r"^[^\x00]*$")] = ""
    profile: ProfileName | None = None
    latency_budget_ms: Budget | None = None
    retention_days: Days | None = None
    audit_rate: float = Field(default=0.02, ge=0, le=1)
    reasons: Reasons = Field(default=[])
    attributes_schema: dict[str, Any] | None = None

    def values(self) -> dict[str, Any]:
        return self.model_dump(exclude_unset=True, exclude={"revision", "archived"})


class RecipeOut(Traits):
    """A recipe."""

    name: str
    model_hash: str | None = Field(description="active bundle, set through /v1/models; null: the service's")
    shadow_hash: str | None = Field(description="bundle that is compared with the active one")
    mask_id: str | None = Field(description="ignore mask in force; null: all of a part is inspected")
    revision: int = Field(description="grows with every change")
    created_at: datetime
    updated_at: datetime
    archived_at: datetime | None
    links: dict[str, str]


class RecipesOut(BaseModel):
    items: list[RecipeOut] = Field(description="by name")
    next: str | None = Field(description="address of the next page; null on the last one")


def shown(row: RecipeRow) -> RecipeOut:
    """A stored row as the API shows it."""
    own = f"/v1/recipes/{row.name}"
    names = [name for name in RecipeOut.model_fields if name != "links"]
    links = {"self": own, "thresholds": f"{own}/thresholds", "mask": f"{own}/mask"}
    return RecipeOut.model_validate({**{name: getattr(row, name) for name in names}, "links": links})


def answer(row: RecipeRow, response: Response) -> RecipeOut:
    response.headers["ETag"] = f'"{row.revision}"'
    return shown(row)


@router.get("", summary="Recipes, by name", responses=problem_docs(422, 503))
async def list_recipes(
    serving: Serving,
    who: Operator,
    archived: Annotated[bool, Query(description="also those taken out of use")] = False,
    after: Annotated[str, Query(max_length=64, pattern=PLAIN, description="names after this one")] = "",
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> RecipesOut:
    """All that were made here; images may also name others, unless `strict_recipes` is set."""
    book = RecipeBook(serving.database)
    rows = await asyncio.to_thread(book.page, archived=archived, after=after, limit=limit + 1)
    following = None
    if len(rows) > limit:
        following = (
            f"{router.prefix}?archived={str(archived).lower()}&limit={limit}&after={rows[limit - 1].name}"
        )
    return RecipesOut(items=[shown(row) for row in rows[:limit]], next=following)


@router.post("", status_code=201, summary="Create a recipe", responses=problem_docs(409, 422, 503))
async def create_recipe(body: RecipeIn, response: Response, serving: Serving, who: Admin) -> RecipeOut:
    """Its limits are the bundle's suggestion until they are set."""
    _check_profile(serving, body.name, body.profile)
    values = body.model_dump(exclude={"name"})
    row = await asyncio.to_thread(RecipeBook(serving.database).create, who, body.name, values)
    response.headers["Location"] = f"{router.prefix}/{row.name}"
    return answer(row, response)


@router.get("/{recipe}", summary="One recipe", responses=problem_docs(404, 503))
async def get_recipe(recipe: RecipeName, response: Response, serving: Serving, who: Operator) -> RecipeOut:
    """With its revision, also as the ETag."""
    return answer(await asyncio.to_thread(RecipeBook(serving.database).get, recipe), response)


@router.patch("/{recipe}", summary="Change a recipe", responses=problem_docs(404, 409, 422, 428, 503))
async def change_recipe(
    recipe: RecipeName,
    body: RecipePatch,
    response: Response,
    serving: Serving,
    who: Admin,
    if_match: Annotated[
        str | None, Header(description="the ETag the change is based on", json_schema_extra=_IF_MATCH)
    ] = None,
) -> RecipeOut:
    """409 if somebody changed it since the revision that was read."""
    revision = body.revision if body.revision is not None else _revision(if_match)
    _check_profile(serving, recipe, body.profile)
    book, values = RecipeBook(serving.database), body.values()

    def change() -> RecipeRow:
        row = book.change(who, recipe, values, revision) if values or body.archived is None else None
        if body.archived is not None:
            row = book.archive(who, recipe, body.archived, revision if row is None else row.revision)
        assert row is not None
        return row

    return answer(await asyncio.to_thread(change), response)


@router.delete("/{recipe}", summary="Archive a recipe", responses=problem_docs(404, 409, 503))
async def archive_recipe(recipe: RecipeName, response: Response, serving: Serving, who: Admin) -> RecipeOut:
    """Images for it are refused from now on; what was inspected stays. PATCH `archived` undoes it."""
    return answer(await asyncio.to_thread(RecipeBook(serving.database).archive, who, recipe, True), response)


def _revision(if_match: str | None) -> int:
    if if_match is None:
        detail = "say what the change is based on: `revision` in the body, or If-Match with the recipe's ETag"
        raise InspectionError(428, "revision-required", detail)
    found = _ETAG.fullmatch(if_match.strip())
    if found is None:
        raise InspectionError(422, "invalid-if-match", 'If-Match must be one ETag of the recipe, like "3"')
    return int(found[1])


def _check_profile(serving: Services, recipe: RecipeName, profile: str | None) -> None:
    if profile is not None:
        serving.engines.profile(recipe, profile)
