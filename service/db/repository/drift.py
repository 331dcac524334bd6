"""What drift is looked for in: the first and the newest inspections of a recipe under a model."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.orm import Session

from service.db.tables import InspectionRow
from service.ids import first_id_at

_ROW = InspectionRow
_COLUMNS: tuple[Any, ...] = (
    *(_ROW.id, _ROW.profile, _ROW.mask_id, _ROW.score, _ROW.brightness, _ROW.sharpness),
    *(_ROW.image_height_px, _ROW.image_width_px, _ROW.recipe, _ROW.model_hash, _ROW.status),
)
_LOOK = 10  # times as many inspections as are wanted, of other models and recipes among them


def first(session: Session, recipe: str, model_hash: str, count: int) -> Sequence[Row[Any]]:
    """The first `count` that ended well, oldest first."""
    seen = select(*_COLUMNS).where(_ROW.model_hash == model_hash).order_by(_ROW.id).limit(_LOOK * count)
    one = seen.subquery()
    query = select(one).where(one.c.recipe == recipe, one.c.status == "done")
    return session.execute(query.order_by(one.c.id).limit(count)).all()


def newest(session: Session, recipe: str, model_hash: str, since: datetime, count: int) -> Sequence[Row[Any]]:
    """The newest `count` that ended well, of those that arrived since then."""
    seen = select(*_COLUMNS).where(_ROW.recipe == recipe, _ROW.id >= first_id_at(since))
    one = seen.order_by(_ROW.id.desc()).limit(_LOOK * count).subquery()
    query = select(one).where(one.c.model_hash == model_hash, one.c.status == "done")
    return session.execute(query.order_by(one.c.id.desc()).limit(count)).all()
