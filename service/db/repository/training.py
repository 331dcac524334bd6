"""Stored inspections as a training set needs them: a few columns of each, portion by portion."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from service.db.repository import masks, model_life, reviews, thresholds
from service.db.repository.filters import Condition
from service.db.tables import InspectionRow, MaskRow, RecipeRow, ReviewRow, ThresholdRow
from service.ids import first_id_at

_PORTION = 2000
_REVIEWS = 500


@dataclass(frozen=True)
class Entry:
    """One inspection."""

    id: str
    created_at: datetime
    status: str
    verdict: str | None
    score: float | None
    review_state: str
    lot: str | None
    station: str | None
    line: str | None
    captured_at: datetime | None
    model_hash: str
    image_sha256: str
    media_type: str


_COLUMNS: tuple[Any, ...] = (
    *(InspectionRow.id, InspectionRow.created_at, InspectionRow.status, InspectionRow.verdict),
    *(InspectionRow.score, InspectionRow.review_state, InspectionRow.lot, InspectionRow.station),
    *(InspectionRow.line, InspectionRow.captured_at, InspectionRow.model_hash),
    *(InspectionRow.image_sha256, InspectionRow.image_media_type),
)


def arrived(session: Session, recipe: str, since: datetime, until: datetime) -> Iterator[Entry]:
    """Those of a recipe that arrived in a half-open span, oldest first."""
    span = (InspectionRow.id >= first_id_at(since), InspectionRow.id < first_id_at(until))
    return _portions(session, InspectionRow.recipe == recipe, *span)


def reviewed(session: Session, recipe: str, decision: str) -> Iterator[Entry]:
    """Those of a recipe, ever, of which people say this in the end; oldest first."""
    # In a form that no planner looks into: of all of a recipe, only few are reviewed.
    of_recipe = Condition("recipe", equal=recipe).on({"recipe": InspectionRow.recipe})
    return _portions(session, InspectionRow.review_state == decision, of_recipe)


def _portions(session: Session, *conditions: ColumnElement[bool]) -> Iterator[Entry]:
    query = select(*_COLUMNS).where(*conditions).order_by(InspectionRow.id).limit(_PORTION)
    portion = query
    while True:
        rows = session.execute(portion).all()
        yield from (Entry(*row) for row in rows)
        if len(rows) < _PORTION:
            return
        portion = query.where(InspectionRow.id > rows[-1][0])


def standing(session: Session, identifiers: Sequence[str]) -> dict[str, ReviewRow]:
    """The review that stands for each of these inspections that has one."""
    found: dict[str, ReviewRow] = {}
    for start in range(0, len(identifiers), _REVIEWS):
        some = identifiers[start : start + _REVIEWS]
        query = select(ReviewRow).where(ReviewRow.inspection_id.in_(some))
        rows: dict[str, list[ReviewRow]] = {}
        for row in session.scalars(query.order_by(ReviewRow.inspection_id, ReviewRow.revision)):
            rows.setdefault(row.inspection_id, []).append(row)
        for identifier, of_one in rows.items():
            if (stands := reviews.standing(of_one)) is not None:
                found[identifier] = stands
    return found


def limits_in_force(session: Session, recipe: str) -> ThresholdRow | None:
    """The newest limits of the model and profile that inspect a recipe; None before its first inspection."""
    named = session.scalar(select(RecipeRow.profile).where(RecipeRow.name == recipe))
    newest = session.execute(
        select(InspectionRow.model_hash, InspectionRow.profile)
        .where(InspectionRow.recipe == recipe)
        .order_by(InspectionRow.id.desc())
        .limit(1)
    ).first()
    model_hash, profile = model_life.active(session, recipe), named or (newest and newest[1])
    if model_hash is None or profile is None:
        return None
    return thresholds.newest(session, recipe, model_hash, profile)


def mask_in_force(session: Session, recipe: str) -> MaskRow | None:
    """The recipe's mask, None when all of a part is inspected."""
    row = masks.newest(session, recipe)
    return None if row is None or row.share == 0 else row
