"""Suspicious training images: the ranked list, their pictures, and people's marks for the next training."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from service.access.principal import Operator
from service.api.bodies import Body
from service.api.deps import Serving
from service.api.models import ModelHash
from service.bundles import Suspect
from service.db.tables import TrainingMarkRow
from service.errors import problem_docs
from service.training_audit import TrainingAudit

router = APIRouter(prefix="/v1/models/{model_hash}/audit", tags=["models"])
Mark = Literal["defective", "fine"]
_MOST = 10_000_000
Rank = Annotated[int, Path(ge=1, le=_MOST, description="in the order of suspicion, from 1")]
_LINES = "text/csv; charset=utf-8"


class MarkIn(Body):
    image: str = Field(min_length=1, max_length=4096, description="name of the training image in the audit")
    mark: Mark | None = Field(description="null takes the mark away")


class MarkOut(BaseModel):
    rank: int
    image: str
    sha256: str | None = Field(description="of the file; null in bundles from before it was noted")
    mark: Mark | None = Field(description="null: none stands")
    who: str | None
    marked_at: datetime | None


class CountsOut(BaseModel):
    defective: int
    fine: int


class MarksOut(BaseModel):
    items: list[MarkOut] = Field(description="by rank")
    counts: CountsOut = Field(description="of all marks")
    next: int | None = Field(description="`after` of the following page; null on the last one")


class SuspectOut(BaseModel):
    rank: int
    image: str
    score: float = Field(description="calibrated: robust standard deviations above a typical part")
    sha256: str | None = Field(description="of the file; null in bundles from before it was noted")
    mark: Mark | None = Field(description="what a person said of it")
    picture: str | None = Field(description="small WebP image; null where the bundle has none")


class SuspectsOut(BaseModel):
    total: int
    counts: CountsOut = Field(description="of all marks")
    items: list[SuspectOut] = Field(description="training images that look most like contaminants first")


def suspect(model_hash: str, found: Suspect, mark: TrainingMarkRow | None, pictures: int) -> SuspectOut:
    """A ranked image as the API shows it, of a bundle with so many pictures."""
    at = f"/v1/models/{model_hash}/audit/pictures/{found.rank}" if found.rank <= pictures else None
    stands: Any = None if mark is None else mark.mark
    return SuspectOut(
        rank=found.rank,
        image=found.image,
        score=found.score,
        sha256=found.sha256,
        mark=stands,
        picture=at,
    )


def _mark(row: TrainingMarkRow) -> MarkOut:
    return MarkOut.model_validate({name: getattr(row, name) for name in MarkOut.model_fields})


@router.get("", summary="Suspicious training images", responses=problem_docs(404, 422, 503))
async def get_audit(
    model_hash: ModelHash,
    serving: Serving,
    who: Operator,
    offset: Annotated[int, Query(ge=0, le=_MOST)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> SuspectsOut:
    """Every training image, ranked by how much it looks like a contaminant."""
    found = await asyncio.to_thread(
        TrainingAudit(serving.database).sheet, model_hash, offset=offset, limit=limit
    )
    return SuspectsOut(
        total=found.total,
        counts=CountsOut(**found.counts),
        items=[
            suspect(model_hash, each, found.marks.get(each.rank), found.pictures) for each in found.suspects
        ],
    )


@router.get(
    "/pictures/{rank}",
    summary="A training image, small",
    response_class=Response,
    responses={
        200: {"description": "WebP", "content": {"image/webp": {}}},
        **problem_docs(404, 422, 503),
    },
)
async def get_picture(model_hash: ModelHash, rank: Rank, serving: Serving, who: Operator) -> Response:
    """As the network sees it, at most 256 pixels a side; bundles have the most suspicious ones."""
    data = await asyncio.to_thread(TrainingAudit(serving.database).picture, model_hash, rank)
    headers = {"Cache-Control": "private, max-age=31536000, immutable"}  # a bundle never changes
    return Response(data, media_type="image/webp", headers=headers)


@router.get("/marks", summary="Marks on training images", responses=problem_docs(404, 422, 503))
async def list_marks(
    model_hash: ModelHash,
    serving: Serving,
    who: Operator,
    after: Annotated[int, Query(ge=0, le=_MOST, description="rank of the last one before")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> MarksOut:
    """Those that stand, by rank."""
    rows, counts = await asyncio.to_thread(
        TrainingAudit(serving.database).marks, model_hash, after=after, limit=limit + 1
    )
    items = [_mark(row) for row in rows[:limit]]
    following = items[-1].rank if len(rows) > limit else None
    return MarksOut(items=items, counts=CountsOut(**counts), next=following)


@router.post("/marks", summary="Mark a training image", responses=problem_docs(404, 422, 503))
async def post_mark(model_hash: ModelHash, body: MarkIn, serving: Serving, who: Operator) -> MarkOut:
    """`defective`: the next training leaves it out; `fine`: it never does for looking suspicious.

    The last mark stands, and null takes it away; who marked what before is in the audit log.
    """
    found, row = await asyncio.to_thread(
        TrainingAudit(serving.database).mark, who, model_hash, body.image, body.mark
    )
    if row is not None:
        return _mark(row)
    return MarkOut(
        rank=found.rank, image=found.image, sha256=found.sha256, mark=None, who=None, marked_at=None
    )


@router.get(
    "/marks.csv",
    summary="Marks as a file",
    response_class=Response,
    responses={
        200: {"description": "One mark a line", "content": {"text/csv": {"schema": {"type": "string"}}}},
        **problem_docs(404, 422, 503),
    },
)
async def export_marks(model_hash: ModelHash, serving: Serving, who: Operator) -> Response:
    """For `inlier-trainer fit --marks FILE`."""
    lines = await asyncio.to_thread(TrainingAudit(serving.database).export, model_hash)

    async def portions() -> AsyncIterator[bytes]:
        while (portion := await asyncio.to_thread(next, lines, None)) is not None:
            yield portion

    headers = {"Content-Disposition": f'attachment; filename="marks-{model_hash[:12]}.csv"'}
    return StreamingResponse(portions(), media_type=_LINES, headers=headers)
