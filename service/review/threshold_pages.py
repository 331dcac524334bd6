"""The thresholds page: limits on the scores of stored inspections, and what other ones would change."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, Field

from service.access.principal import Operator
from service.api.deps import Serving
from service.api.threshold_documents import Hash, Score
from service.api.thresholds import place
from service.metadata import Name, ProfileName
from service.review import tuning
from service.review.forms import sent
from service.review.shell import page

router = APIRouter(include_in_schema=False)
_SAMPLES = (1000, 10_000, 100_000)


class TuningQuery(BaseModel):
    """Whose limits, where they would stand, and how many inspections they are tried on."""

    recipe: Name | None = None
    model: Hash | None = None
    profile: ProfileName | None = None
    review: Score | None = None
    reject: Score | None = None
    limit: Annotated[int, Field(ge=1, le=_SAMPLES[-1])] = _SAMPLES[1]
    below: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None


@router.get("/thresholds")
async def thresholds(request: Request, serving: Serving, who: Operator) -> HTMLResponse:
    """Both limits of a recipe, to be dragged; without scripts they are typed."""
    query = sent(request, TuningQuery)
    known = await asyncio.to_thread(tuning.recipe_names, serving.database)
    recipe = query.recipe
    if recipe is None:
        recipe = await asyncio.to_thread(tuning.latest_recipe, serving.database, known)
    active = serving.engines.serving(recipe).hash
    found = await asyncio.to_thread(place, recipe, serving, query.model, query.profile)
    return page(
        request,
        "thresholds.html",
        recipes=known,
        choices=await asyncio.to_thread(tuning.choices, serving.database, recipe, active),
        active_model=active,
        samples=sorted({*_SAMPLES, query.limit}),
        limit=query.limit,
        tuning=await asyncio.to_thread(
            tuning.gather,
            serving.database,
            serving.scores,
            found,
            review=query.review,
            reject=query.reject,
            limit=query.limit,
            below=query.below,
        ),
    )
