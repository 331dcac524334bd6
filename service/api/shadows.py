"""Shadows: candidates that score live images beside the active model, and the comparison of the two."""

import asyncio
from typing import Annotated, Literal

from fastapi import APIRouter, Query

from service.access.principal import Admin, Operator, Principal
from service.api.deps import Cursor, Services, Serving, id_text
from service.api.model_documents import ModelOut, RecipeWhyIn
from service.api.models import ModelHash, shown
from service.api.shadow_documents import ShadowOut, document
from service.api.threshold_documents import Why
from service.errors import problem_docs
from service.metadata import Moment, Name
from service.model_life import Listed, ModelBook
from service.shadow.comparison import Comparison, compare

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get(
    "/{model_hash}/shadow",
    summary="A shadow beside the model that inspects",
    responses=problem_docs(404, 422, 503),
)
async def get_shadow(
    model_hash: ModelHash,
    serving: Serving,
    who: Operator,
    recipe: Annotated[Name, Query()],
    since: Annotated[Moment | None, Query(description="arrived at or after, with time zone")] = None,
    only: Annotated[Literal["disagreements"] | None, Query(description="which pairs are listed")] = None,
    cursor: Cursor = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> ShadowOut:
    """How often they agree, where they do not, and how long each takes; of its newest time as a shadow.

    Counts are over the newest 10 000 inspections of that time, pairs over all of it.
    """
    active, before = serving.engines.serving(recipe).hash, id_text(cursor)

    def run() -> Comparison:
        return compare(
            serving.database,
            model_hash,
            recipe,
            since=since,
            disagreements=only is not None,
            before=before,
            limit=limit + 1,
        )

    return document(await asyncio.to_thread(run), model_hash, recipe, active, limit)


@router.post(
    "/{model_hash}/shadow", summary="Let a model shadow a recipe", responses=problem_docs(404, 409, 422, 503)
)
async def shadow_model(model_hash: ModelHash, body: RecipeWhyIn, serving: Serving, who: Admin) -> ModelOut:
    """It scores live images beside the active model, when there is nothing else to do, and decides nothing.

    One that shadowed the recipe before is replaced.
    """
    return await _shadow(model_hash, body.recipe, body.why, serving, who, on=True)


@router.delete("/{model_hash}/shadow", summary="End a shadow", responses=problem_docs(404, 409, 422, 503))
async def unshadow_model(
    model_hash: ModelHash,
    serving: Serving,
    who: Admin,
    recipe: Annotated[Name, Query()],
    why: Annotated[Why, Query()],
) -> ModelOut:
    """The model becomes a candidate again, unless it shadows other recipes; its scores stay."""
    return await _shadow(model_hash, recipe, why, serving, who, on=False)


async def _shadow(
    model: str, recipe: str, why: str, serving: Services, who: Principal, *, on: bool
) -> ModelOut:
    book, serves = ModelBook(serving.database), serving.engines.serving(recipe).hash

    def run() -> Listed:
        book.shadow(who, model, recipe, serves=serves, on=on, why=why)
        return book.one(model)

    found = await asyncio.to_thread(run)
    return ModelOut(**shown(found.rows[0], found, serving.engines.own.hash))
