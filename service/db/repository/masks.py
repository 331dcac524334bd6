"""Versions of the ignore masks of recipes; never updated, a removal is an empty version."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.db.repository.scores import Span
from service.db.tables import InspectionRow, MaskRow
from service.ids import new_id


def get(session: Session, identifier: str) -> MaskRow | None:
    return session.get(MaskRow, identifier)


def version(session: Session, recipe: str, number: int) -> MaskRow | None:
    return session.scalar(select(MaskRow).where(MaskRow.recipe == recipe, MaskRow.version == number))


def newest(session: Session, recipe: str) -> MaskRow | None:
    query = select(MaskRow).where(MaskRow.recipe == recipe).order_by(MaskRow.version.desc()).limit(1)
    return session.scalar(query)


def history(session: Session, recipe: str, limit: int) -> Sequence[MaskRow]:
    """Newest first."""
    query = select(MaskRow).where(MaskRow.recipe == recipe).order_by(MaskRow.version.desc()).limit(limit)
    return session.scalars(query).all()


def add(
    session: Session,
    recipe: str,
    *,
    sha256: str,
    size: tuple[int, int],
    share: float,
    who: str,
    why: str,
) -> MaskRow:
    """The next version; `size` is (height, width) of the PNG among the blobs."""
    last = session.scalar(select(func.max(MaskRow.version)).where(MaskRow.recipe == recipe))
    row = MaskRow(
        id=new_id(),
        recipe=recipe,
        version=(last or 0) + 1,
        sha256=sha256,
        height_px=size[0],
        width_px=size[1],
        share=share,
        who=who,
        why=why,
        created_at=datetime.now(UTC),
    )
    session.add(row)
    session.flush()
    return row


def newest_image_size(session: Session, recipe: str) -> tuple[int, int] | None:
    """(height, width) of the newest image of a recipe."""
    row = session.execute(
        select(InspectionRow.image_height_px, InspectionRow.image_width_px)
        .where(InspectionRow.recipe == recipe)
        .order_by(InspectionRow.id.desc())
        .limit(1)
    ).first()
    return None if row is None else (row[0], row[1])


@dataclass(frozen=True)
class StoredMap:
    """The anomaly map of an inspection among the blobs, and what was made of it."""

    id: str
    score: float
    score_raw: float
    review_state: str
    heatmap_sha256: str
    heatmap_scale: float


def stored_maps(session: Session, span: Span, limit: int) -> list[StoredMap]:
    """Of the newest `limit` inspections of the span."""
    row = InspectionRow
    query = select(row.id, row.score, row.score_raw, row.review_state, row.heatmap_sha256, row.heatmap_scale)
    known = (row.heatmap_sha256.is_not(None), row.heatmap_scale.is_not(None), row.score_raw.is_not(None))
    query = query.where(*span.conditions(), *known).order_by(row.id.desc()).limit(limit)
    rows: Sequence[Any] = session.execute(query).all()
    return [StoredMap(*each) for each in rows]
