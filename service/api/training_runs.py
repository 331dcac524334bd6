"""Runs of the job that retrains recipes."""

import asyncio
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, Field

from service.access.principal import Operator
from service.api.deps import Cursor, Serving, id_text
from service.api.models import REPORT_CSP
from service.errors import problem_docs
from service.metadata import Name
from service.retraining import history

router = APIRouter(prefix="/v1/training-runs", tags=["models"])
State = Literal["running", "passed", "rejected", "failed", "interrupted"]
RunId = Annotated[UUID, Path(description="id of a run")]
_EXAMPLE: dict[str, Any] = {
    "id": "019ab5a0-3f2e-7c41-9d53-6a1f0c2b7e88",
    "recipe": "bolt",
    "state": "rejected",
    "step": "gate",
    "cause": "the schedule",
    "who": "inlier-service",
    "started_at": "2026-11-22T02:00:04Z",
    "finished_at": "2026-11-22T03:12:40Z",
    "duration_s": 4356.0,
    "base_hash": "3f" * 32,
    "candidate_hash": "a7" * 32,
    "detail": "the candidate is stopped by: escape set",
    "gate": {
        "passed": False,
        "criteria": [
            {
                "name": "escapes",
                "title": "Escape set",
                "passed": False,
                "why": "3 of 5 missed defects pass, 2 under the active model",
            }
        ],
    },
    "links": {"report": "/v1/training-runs/019ab5a0-3f2e-7c41-9d53-6a1f0c2b7e88/report"},
}


class CriterionOut(BaseModel):
    name: str
    title: str
    passed: bool | None = Field(description="null: it could not be asked, and stops nothing")
    why: str


class GateOut(BaseModel):
    passed: bool
    criteria: list[CriterionOut]


class RunOut(BaseModel):
    id: str
    recipe: str
    state: State = Field(description="a run that was killed is `interrupted`; the next one takes it up")
    step: str = Field(description="export, train, gate, release, done: how far it came")
    cause: str = Field(description="`a person`, `the schedule`, `drift`, or what `--cause` said")
    who: str
    started_at: datetime
    finished_at: datetime | None
    duration_s: float | None = Field(description="so far, of a run that goes on; null: nobody noted its end")
    base_hash: str | None = Field(description="of the model that it is to replace")
    candidate_hash: str | None
    detail: str | None = Field(description="why it failed, was stopped or refused")
    gate: GateOut | None = Field(description="null where it was not held, or its folder is not at hand")
    links: dict[str, str] = Field(description="`report`, where the gate's report is at hand")


class RunsOut(BaseModel):
    model_config = {"json_schema_extra": {"examples": [{"items": [_EXAMPLE], "next": None}]}}

    items: list[RunOut] = Field(description="newest first")
    next: str | None = Field(description="`cursor` of the following page; null on the last one")


def shown(run: history.Run, at: datetime) -> dict[str, Any]:
    """The values of a `RunOut`."""
    names = (
        *("id", "recipe", "step", "cause", "who", "started_at", "finished_at"),
        *("base_hash", "candidate_hash", "detail"),
    )
    return {
        **{name: getattr(run.row, name) for name in names},
        "state": run.state,
        "duration_s": run.seconds(at),
        "gate": None if run.gate is None else run.gate.model_dump(),
        "links": {"report": f"{router.prefix}/{run.row.id}/report"} if run.report else {},
    }


@router.get("", summary="Runs that retrained, newest first", responses=problem_docs(422, 503))
async def list_runs(
    serving: Serving,
    who: Operator,
    recipe: Annotated[Name | None, Query()] = None,
    state: Annotated[State | None, Query(description="as it was noted last")] = None,
    cursor: Cursor = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> RunsOut:
    """What became of each, and what its gate said."""
    found = await asyncio.to_thread(
        history.history, serving.database, recipe, state=state, before=id_text(cursor), limit=limit + 1
    )
    items = [RunOut(**shown(run, found.at)) for run in found.items[:limit]]
    return RunsOut(items=items, next=items[-1].id if len(found.items) > limit else None)


@router.get(
    "/{run_id}/report",
    summary="The gate's report of a run, for a person",
    response_class=Response,
    responses={
        200: {"description": "HTML", "content": {"text/html": {"schema": {"type": "string"}}}},
        **problem_docs(404, 422, 503),
    },
)
async def get_run_report(run_id: RunId, serving: Serving, who: Operator) -> Response:
    """As the trainer wrote it, shown without scripts and without requests to anywhere.

    404 where the run came to no gate, its folder was cleared, or lies on another machine.
    """
    html = await asyncio.to_thread(history.report, serving.database, str(run_id))
    headers = {"Content-Security-Policy": REPORT_CSP, "Cache-Control": "private, no-cache"}
    return Response(html, media_type="text/html", headers=headers)
