"""What is kept no longer: old inspections that nobody reviewed, and blobs that no row refers to."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import ColumnElement, CursorResult, delete, exists, func, or_, select
from sqlalchemy.orm import Session

from service.db.repository.inspections import PENDING
from service.db.tables import InspectionRow, MaskRow, RecipeRow, ReviewRow
from service.ids import first_id_at

# Every column that holds the name of a blob. A new one belongs here, or its blobs are removed.
BLOBS = (
    InspectionRow.image_sha256,
    InspectionRow.heatmap_sha256,
    InspectionRow.reconstruction_sha256,
    MaskRow.sha256,
)


@dataclass(frozen=True)
class Limit:
    """Inspections of a recipe that arrived before a moment are kept no longer."""

    recipe: str
    before: datetime


def limits(session: Session, now: datetime) -> list[Limit]:
    """Of the recipes that have one; archived ones, too."""
    query = select(RecipeRow.name, RecipeRow.retention_days).where(RecipeRow.retention_days.is_not(None))
    return [
        Limit(name, now - timedelta(days=days or 0))
        for name, days in session.execute(query.order_by(RecipeRow.name))
    ]


def _is_over(limit: Limit, now: datetime) -> tuple[ColumnElement[bool], ...]:
    """Past its time, ended, and nobody has reviewed it or does so now."""
    return (
        InspectionRow.recipe == limit.recipe,
        InspectionRow.id < first_id_at(limit.before),
        InspectionRow.status.not_in(PENDING),
        InspectionRow.review_revision == 0,
        ~exists().where(ReviewRow.inspection_id == InspectionRow.id),
        or_(InspectionRow.claimed_until.is_(None), InspectionRow.claimed_until < now),
    )


def count(session: Session, limit: Limit, now: datetime) -> int:
    """How many inspections are past the limit."""
    query = select(func.count()).select_from(InspectionRow).where(*_is_over(limit, now))
    return session.scalar(query) or 0


def portion(session: Session, limit: Limit, now: datetime, *, after: str, most: int) -> Sequence[str]:
    """The oldest ids after `after` that are past the limit."""
    query = select(InspectionRow.id).where(*_is_over(limit, now), InspectionRow.id > after)
    return session.scalars(query.order_by(InspectionRow.id).limit(most)).all()


def remove(session: Session, limit: Limit, now: datetime, identifiers: Collection[str]) -> int:
    """Remove those that are still past the limit, with their attributes; how many there were."""
    # Asked again in the same statement: somebody may have reviewed one since it was listed.
    query = delete(InspectionRow).where(InspectionRow.id.in_(identifiers), *_is_over(limit, now))
    result = session.execute(query, execution_options={"synchronize_session": False})
    return cast(CursorResult[Any], result).rowcount


def referenced(session: Session, names: Collection[str]) -> set[str]:
    """Those of the blobs that some row refers to."""
    found: set[str | None] = set()
    for column in BLOBS:
        found.update(session.scalars(select(column).where(column.in_(names)).distinct()))
    return {name for name in found if name is not None}
