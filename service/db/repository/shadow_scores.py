"""Scores of shadows: stored once, counted over the newest inspections, and listed in pairs."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, func, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.db.repository import model_life, models
from service.db.session import Database
from service.db.tables import InspectionRow, ModelEventRow, ShadowScoreRow
from service.ids import first_id_at

_SCORE = ShadowScoreRow
_ENDS = (models.ACTIVATED, models.ROLLED_BACK, model_life.UNSHADOWED)


@dataclass(frozen=True)
class Span:
    """A model's newest time as a shadow of a recipe; `until` is None while it lasts."""

    recipe: str
    model_hash: str
    since: datetime
    until: datetime | None

    def holds(self, identifier: Any) -> ColumnElement[bool]:
        """Whether the inspection arrived in the span."""
        begun: ColumnElement[bool] = identifier >= first_id_at(self.since)
        return begun if self.until is None else and_(begun, identifier < first_id_at(self.until))


@dataclass(frozen=True)
class Window:
    """The newest inspections of a span, at most so many; `first` is the oldest of them."""

    span: Span
    first: str
    eligible: int  # finished under another model
    whole: bool  # nothing of the span is older


def add(database: Database, row: ShadowScoreRow) -> bool:
    """Store a score; False if there is one, or if the inspection is no longer stored."""
    values = {column.key: getattr(row, column.key) for column in row.__table__.columns}
    with suppress(IntegrityError), database.write() as session:
        session.execute(insert(_SCORE).values(**values))
        return True
    return False


def span(session: Session, recipe: str, model_hash: str) -> Span | None:
    """When the model last became a shadow of the recipe, and when that ended; None if it never did."""
    event = ModelEventRow
    mine = event.recipe == recipe, event.model_hash == model_hash
    query = select(event.id, event.created_at).where(*mine, event.action == model_life.SHADOWED)
    begun = session.execute(query.order_by(event.id.desc()).limit(1)).first()
    if begun is None:
        return None
    ended = select(event.created_at).where(*mine, event.id > begun.id, event.action.in_(_ENDS))
    return Span(recipe, model_hash, begun.created_at, session.scalar(ended.order_by(event.id).limit(1)))


def failures(session: Session, within: Span) -> Sequence[ModelEventRow]:
    """The newest notes of processes that could not load the shadow."""
    event = ModelEventRow
    query = select(event).where(
        event.recipe == within.recipe,
        event.model_hash == within.model_hash,
        event.action == model_life.UNUSABLE,
        event.id >= first_id_at(within.since),
    )
    return session.scalars(query.order_by(event.id.desc()).limit(10)).all()


def window(session: Session, within: Span, most: int) -> Window:
    """The newest `most` inspections of a span."""
    row = InspectionRow
    newest = (
        select(row.id, row.status, row.model_hash)
        .where(row.recipe == within.recipe, within.holds(row.id))
        .order_by(row.id.desc())
        .limit(most)
        .subquery()
    )
    eligible = func.count().filter(newest.c.status == "done", newest.c.model_hash != within.model_hash)
    query = select(func.min(newest.c.id), eligible, func.count()).select_from(newest)
    first, count, looked_at = session.execute(query).one()
    return Window(within, first or "", count, looked_at < most)


def measured(session: Session, over: Window) -> Sequence[Row[str, str, float | None, float]]:
    """(active verdict, shadow's verdict, active latency, shadow's latency) of what was scored."""
    query = select(_SCORE.active_verdict, _SCORE.verdict, _SCORE.active_latency_ms, _SCORE.latency_ms)
    return session.execute(query.where(*_of(over.span), _SCORE.inspection_id >= over.first)).all()


def pairs(
    session: Session, within: Span, *, disagreements: bool, before: str | None, limit: int
) -> Sequence[Row[ShadowScoreRow, datetime, str]]:
    """(score, arrival, review state) of inspections older than `before`, newest first."""
    row = InspectionRow
    query = select(_SCORE, row.created_at, row.review_state).join(row, row.id == _SCORE.inspection_id)
    query = query.where(*_of(within)).order_by(_SCORE.inspection_id.desc()).limit(limit)
    if disagreements:
        query = query.where(_SCORE.disagrees)
    if before is not None:
        query = query.where(_SCORE.inspection_id < before)
    return session.execute(query).all()


def _of(within: Span) -> tuple[ColumnElement[bool], ...]:
    mine = _SCORE.recipe == within.recipe, _SCORE.model_hash == within.model_hash
    return *mine, within.holds(_SCORE.inspection_id)
