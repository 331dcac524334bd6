"""Runs that retrained recipes: on the page of models the newest, here all."""

import asyncio
from uuid import UUID

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ConfigDict

from service.access.principal import Operator
from service.api.deps import Serving
from service.api.training_runs import State
from service.metadata import Name
from service.retraining import history
from service.review.forms import sent
from service.review.shell import page

router = APIRouter(include_in_schema=False)
_SHOWN = 100


class RunsQuery(BaseModel):
    """Which runs the page shows."""

    model_config = ConfigDict(extra="ignore")

    recipe: Name | None = None
    state: State | None = None
    cursor: UUID | None = None


@router.get("/models/runs")
async def run_list(request: Request, serving: Serving, who: Operator) -> HTMLResponse:
    """A hundred runs, newest first, with what became of each."""
    query = sent(request, RunsQuery)
    before = None if query.cursor is None else str(query.cursor)
    found = await asyncio.to_thread(
        history.history,
        serving.database,
        query.recipe,
        state=query.state,
        before=before,
        limit=_SHOWN + 1,
    )
    return page(
        request,
        "runs.html",
        runs=history.Runs(found.items[:_SHOWN], found.titles, found.at),
        following=found.items[_SHOWN - 1].row.id if len(found.items) > _SHOWN else None,
        query=query,
        filtered=(query.recipe, query.state) != (None, None),
    )
