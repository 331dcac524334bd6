"""The page of one inspection: look, decide, go on to the next. It works without scripts, faster with them."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import BaseModel, Field

from service.access.browser import safe_next
from service.access.principal import Operator
from service.api.deps import Serving
from service.api.reviews import Comment, Decision
from service.api.schemas import document
from service.metadata import Name
from service.review.decisions import Reviews
from service.review.desk import open_desk
from service.review.shell import page

router = APIRouter(include_in_schema=False)
_STAGES = ("decode", "store", "preprocess", "queue", "inference", "postprocess")


class DecisionForm(BaseModel):
    """The form of the page, where no script sends the decision."""

    decision: Decision
    reason: Name | None = None
    comment: Comment = ""
    revision: int = Field(ge=0, le=2**31 - 1)
    next: str = "/review"


@router.get("/inspections/{identifier}")
async def inspection(request: Request, identifier: str, serving: Serving, who: Operator) -> HTMLResponse:
    """One inspection: image, reconstruction, difference, heatmap, and why the verdict is what it is."""
    desk = await asyncio.to_thread(open_desk, serving.ledger, serving.scores, identifier)
    return page(
        request,
        "inspection.html",
        desk=desk,
        item=document(desk.row),
        earlier=[document(row) for row in desk.earlier],
        stages=_STAGES,
        in_review=request.query_params.get("in") == "review",
    )


@router.post("/inspections/{identifier}/decision")
async def decide(
    identifier: str, serving: Serving, who: Operator, sent: Annotated[DecisionForm, Form()]
) -> Response:
    """Decide, and go where the form says; 409 when somebody decided meanwhile."""
    _, row = await asyncio.to_thread(
        Reviews(serving.database).add,
        who,
        identifier,
        sent.decision,
        reason=sent.reason,
        comment=sent.comment.strip() or None,
        expected_revision=sent.revision,
    )
    serving.metrics.decided(row.recipe, row.verdict, sent.decision)
    return RedirectResponse(safe_next(sent.next), 303)
