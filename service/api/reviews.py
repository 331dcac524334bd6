"""What people say of inspections, who is looking at which, and what is to be looked at next."""

import asyncio
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from service.access.principal import Operator
from service.api.bodies import Body
from service.api.deps import Serving
from service.api.filters import Common
from service.api.schemas import InspectionOut, document
from service.db.tables import InspectionRow, ReviewRow
from service.errors import problem_docs
from service.metadata import WHOLE, Name
from service.review.decisions import Reviews

router = APIRouter(prefix="/v1", tags=["reviews"])
Decision = Literal["good", "defective", "unsure", "withdrawn"]
Comment = Annotated[str, Field(max_length=2000, pattern=r"^[^\x00]*$")]
Force = Annotated[bool, Query(description="also when another person holds the claim")]


class QueueQuery(Common):
    """Which of what waits; all that are given must hold."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=50, ge=1, le=200)


class ReviewIn(Body):
    """A decision; append-only. `withdrawn` takes the newest one back that stands."""

    decision: Decision
    reason: Name | None = Field(default=None, description="one of the recipe's reasons, where it has any")
    comment: Comment | None = None
    expected_revision: Annotated[int, Field(ge=0, le=2**31 - 1), WHOLE] = Field(
        description="the inspection's `review.revision` that was seen; 0 before the first"
    )


class ReviewOut(BaseModel):
    revision: int
    decision: Decision
    reason: str | None
    comment: str | None
    who: str
    created_at: datetime


class ReviewedOut(BaseModel):
    """A review, and what stands after it."""

    review: ReviewOut
    state: Literal["none", "good", "defective", "unsure"]
    revision: int = Field(description="expected by the next review")
    disagreement: bool = Field(description="a person overruled a PASS or a REJECT")


class ReviewsOut(BaseModel):
    items: list[ReviewOut] = Field(description="oldest first")


class ClaimOut(BaseModel):
    claimed_by: str | None
    claimed_until: datetime | None


class QueueOut(BaseModel):
    items: list[InspectionOut] = Field(description="nearest to a limit first, random PASS audits mixed in")
    open: int = Field(description="all that wait for a person")
    audits: int = Field(description="of these, random PASS audits")


def _review(row: ReviewRow) -> ReviewOut:
    return ReviewOut.model_validate({name: getattr(row, name) for name in ReviewOut.model_fields})


def _claim(row: InspectionRow) -> ClaimOut:
    return ClaimOut(claimed_by=row.claimed_by, claimed_until=row.claimed_until)


@router.post(
    "/inspections/{identifier}/reviews",
    status_code=201,
    summary="Review an inspection",
    responses=problem_docs(404, 409, 422, 503),
)
async def post_review(
    identifier: str, body: ReviewIn, response: Response, serving: Serving, who: Operator
) -> ReviewedOut:
    """409 when somebody reviewed it since `expected_revision`; undo with the decision `withdrawn`."""
    review, row = await asyncio.to_thread(
        Reviews(serving.database).add,
        who,
        identifier,
        body.decision,
        reason=body.reason,
        comment=body.comment,
        expected_revision=body.expected_revision,
    )
    serving.metrics.decided(row.recipe, row.verdict, body.decision)
    response.headers["Location"] = f"/v1/inspections/{row.id}/reviews"
    return ReviewedOut.model_validate(
        {
            "review": _review(review),
            "state": row.review_state,
            "revision": row.review_revision,
            "disagreement": row.disagreement,
        }
    )


@router.get(
    "/inspections/{identifier}/reviews",
    summary="Reviews of an inspection",
    responses=problem_docs(404, 503),
)
async def list_reviews(identifier: str, serving: Serving, who: Operator) -> ReviewsOut:
    """Oldest first, withdrawn ones and withdrawals included."""
    rows = await asyncio.to_thread(Reviews(serving.database).of, identifier)
    return ReviewsOut(items=[_review(row) for row in rows])


@router.post(
    "/inspections/{identifier}/claim",
    summary="Say that one is looking at it",
    responses=problem_docs(404, 409, 422, 503),
)
async def claim(identifier: str, serving: Serving, who: Operator, force: Force = False) -> ClaimOut:
    """For five minutes; claim again to go on. It hides the inspection from others' queues, no more."""
    return _claim(await asyncio.to_thread(Reviews(serving.database).claim, who, identifier, force=force))


@router.delete(
    "/inspections/{identifier}/claim",
    summary="Leave it to others",
    responses=problem_docs(404, 409, 422, 503),
)
async def release(identifier: str, serving: Serving, who: Operator, force: Force = False) -> ClaimOut:
    """Nothing happens when nobody has claimed it."""
    return _claim(await asyncio.to_thread(Reviews(serving.database).release, who, identifier, force=force))


@router.get("/review-queue", summary="What to look at next", responses=problem_docs(422, 503))
async def review_queue(
    serving: Serving,
    who: Operator,
    query: Annotated[QueueQuery, Query()],
) -> QueueOut:
    """What the model asks about, nearest to a limit first, and after every fourth a random PASS audit.

    What others have claimed is left out.
    """
    reviews = Reviews(serving.database)
    rows = await asyncio.to_thread(reviews.queue, who, query.filter(), query.limit)
    total, audits = await asyncio.to_thread(reviews.open_count, query.filter())
    return QueueOut(items=[document(row) for row in rows], open=total, audits=audits)
