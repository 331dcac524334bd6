"""Inspections: what is asked of them and what changes them."""

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

from sqlalchemy import CursorResult, Table, bindparam, func, insert, select, update
from sqlalchemy.orm import Session

from service.db.tables import AttributeRow, InspectionRow
from service.queue.base import Priority

PENDING = ("queued", "running")
ATTRIBUTE_TEXT = 256
# Of every image: made once, on the table and with the values as parameters they cost a third.
_TABLE = cast(Table, InspectionRow.__table__)
_BEGIN = (
    update(_TABLE)
    .where(_TABLE.c.id.in_(bindparam("which", expanding=True)), _TABLE.c.status.in_(PENDING))
    .values(
        status="running",
        attempts=_TABLE.c.attempts + 1,
        worker=bindparam("by"),
        started_at=func.coalesce(_TABLE.c.started_at, bindparam("now", type_=_TABLE.c.started_at.type)),
    )
)
_BEGUN = select(InspectionRow).where(
    InspectionRow.id.in_(bindparam("which", expanding=True)), InspectionRow.status.in_(PENDING)
)
_END = update(_TABLE).where(_TABLE.c.id == bindparam("which"), _TABLE.c.status.in_(PENDING))


def add(session: Session, row: InspectionRow) -> None:
    """Store a new inspection and what it is found by."""
    session.add(row)
    session.flush()
    found_by = [
        {"inspection_id": row.id, "name": name, "value": attribute_text(value)}
        for name, value in (row.attributes or {}).items()
    ]
    if found_by:
        session.execute(insert(AttributeRow), found_by)


def attribute_text(value: Any) -> str:
    """An attribute as the text it is found by: as JSON writes it, without quotes, cut to the column."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text[:ATTRIBUTE_TEXT]


def get(session: Session, identifier: str) -> InspectionRow | None:
    return session.get(InspectionRow, identifier)


def newest_recipe(session: Session) -> str | None:
    """Of the newest inspection."""
    return session.scalar(select(InspectionRow.recipe).order_by(InspectionRow.id.desc()).limit(1))


def newest_of(session: Session, recipe: str, limit: int) -> Sequence[InspectionRow]:
    """The newest of a recipe."""
    query = select(InspectionRow).where(InspectionRow.recipe == recipe)
    return session.scalars(query.order_by(InspectionRow.id.desc()).limit(limit)).all()


def by_idempotency_key(session: Session, key: str) -> InspectionRow | None:
    return session.scalar(select(InspectionRow).where(InspectionRow.idempotency_key == key))


def pending(session: Session, *, limit: int) -> Sequence[tuple[str, Priority]]:
    """(id, priority) of accepted and unfinished inspections, oldest first."""
    query = (
        select(InspectionRow.id, InspectionRow.priority)
        .where(InspectionRow.status.in_(PENDING))
        .order_by(InspectionRow.id)
        .limit(limit)
    )
    return [(identifier, cast(Priority, priority)) for identifier, priority in session.execute(query)]


def begin(session: Session, identifiers: Collection[str], worker: str) -> Mapping[str, InspectionRow]:
    """Count an attempt of `worker` at each; the rows that have not ended, by id."""
    which = list(identifiers)
    session.execute(_BEGIN, {"which": which, "by": worker, "now": datetime.now(UTC)})
    return {row.id: row for row in session.scalars(_BEGUN, {"which": which})}


def give_back(session: Session, identifier: str, worker: str, attempt: int) -> None:
    """running -> queued if this is the attempt that runs, which then does not count; again is no error."""
    session.execute(
        update(InspectionRow)
        .where(
            InspectionRow.id == identifier,
            InspectionRow.status == "running",
            InspectionRow.worker == worker,
            InspectionRow.attempts == attempt,
        )
        .values(status="queued", attempts=attempt - 1)
        .execution_options(synchronize_session=False)
    )


def attempts(session: Session, identifiers: Collection[str], worker: str) -> Mapping[str, int]:
    """Those of the inspections that `worker` still has, each with its number of attempts."""
    query = select(InspectionRow.id, InspectionRow.attempts).where(
        InspectionRow.id.in_(identifiers),
        InspectionRow.status.in_(PENDING),
        InspectionRow.worker == worker,
    )
    return {identifier: count for identifier, count in session.execute(query)}


def ended(session: Session, identifiers: Collection[str]) -> Sequence[str]:
    """Those of the inspections that have an end."""
    query = select(InspectionRow.id).where(
        InspectionRow.id.in_(identifiers), InspectionRow.status.not_in(PENDING)
    )
    return session.scalars(query).all()


def overdue(session: Session, now: datetime, *, limit: int = 1000) -> Sequence[str]:
    """Unfinished inspections whose deadline has passed."""
    query = (
        select(InspectionRow.id)
        .where(InspectionRow.status.in_(PENDING), InspectionRow.deadline_at <= now)
        .limit(limit)
    )
    return session.scalars(query).all()


def finish(session: Session, identifier: str, values: Mapping[str, Any]) -> bool:
    """Store the end of an inspection; False if it already had one, which then stands."""
    result = session.execute(_END, {"which": identifier, "finished_at": datetime.now(UTC), **values})
    return cast(CursorResult[Any], result).rowcount == 1
