"""The page that compares a shadow with the model that inspects."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from service.access.principal import Operator
from service.api.deps import Serving
from service.api.models import ModelHash
from service.metadata import Name
from service.recipes.whatif import VERDICTS
from service.review import shadow_views
from service.review.shell import page

router = APIRouter(include_in_schema=False)


@router.get("/models/{model_hash}/shadow")
async def shadow(
    request: Request, model_hash: ModelHash, serving: Serving, who: Operator, recipe: Annotated[Name, Query()]
) -> HTMLResponse:
    """Both scores of the newest inspections, how often the verdicts agree, and where they do not."""
    active = serving.engines.serving(recipe).hash
    view = await asyncio.to_thread(shadow_views.shadow_view, serving.database, model_hash, recipe, active)
    return page(
        request,
        "shadow.html",
        view=view,
        model_hash=model_hash,
        verdicts=VERDICTS,
        chart=shadow_views,
    )
