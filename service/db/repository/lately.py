"""What arrived lately, as few columns as the overview needs."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, func, select
from sqlalchemy.orm import Session

from service.db.tables import InspectionRow
from service.ids import first_id_at

_ROW = InspectionRow
_COLUMNS: tuple[Any, ...] = (
    *(_ROW.id, _ROW.recipe, _ROW.line, _ROW.station, _ROW.verdict, _ROW.score, _ROW.latency_ms),
    *(_ROW.review, _ROW.reject, _ROW.model_name, _ROW.model_version),
)


def since(session: Session, moment: datetime, limit: int) -> Sequence[Row[Any]]:
    """The newest `limit` that arrived at or after a moment and have ended, newest first."""
    query = select(*_COLUMNS).where(_ROW.id >= first_id_at(moment), _ROW.verdict.is_not(None))
    return session.execute(query.order_by(_ROW.id.desc()).limit(limit)).all()


def backlog(session: Session) -> dict[tuple[str | None, str], int]:
    """How many wait for a person, by line and recipe."""
    query = select(_ROW.line, _ROW.recipe, func.count()).where(_ROW.review_state == "none", _ROW.wanted)
    return {
        (line, recipe): count
        for line, recipe, count in session.execute(query.group_by(_ROW.line, _ROW.recipe))
    }
