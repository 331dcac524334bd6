"""Inspections: what is asked of them and what changes them."""

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

from sqlalchemy import CursorResult, func, insert, select, update
from sqlalchemy.orm import Session

from service.db.tables import AttributeRow, InspectionRow

PENDING = ("queued", "running")
ATTRIBUTE_TEXT = 256


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


def by_idempotency_key(session: Session, key: str) -> InspectionRow | None:
    return session.scalar(select(InspectionRow).where(InspectionRow.idempotency_key == key))


def pending(session: Session, *, after: str, until: str, limit: int = 100) -> Sequence[InspectionRow]:
    """Accepted and unfinished inspections with `after` < id <= `until`, oldest first."""
    query = (
        select(InspectionRow)
        .where(InspectionRow.status.in_(PENDING), InspectionRow.id > after, InspectionRow.id <= until)
        .order_by(InspectionRow.id)
        .limit(limit)
    )
    return session.scalars(query).all()


def newest_id(session: Session) -> str | None:
    """The largest id there is; ids carry their time, but a clock may have been set back since."""
    return session.scalar(select(func.max(InspectionRow.id)))


def start(session: Session, identifiers: Collection[str]) -> None:
    """queued -> running; rows that are further on are left alone."""
    session.execute(
        update(InspectionRow)
        .where(InspectionRow.id.in_(identifiers), InspectionRow.status == "queued")
        .values(status="running")
    )


def finish(session: Session, identifier: str, values: Mapping[str, Any]) -> bool:
    """Store the end of an inspection; False if it already had one, which then stands."""
    query = update(InspectionRow).where(InspectionRow.id == identifier, InspectionRow.status.in_(PENDING))
    result = session.execute(query.values(finished_at=datetime.now(UTC), **values))
    return cast(CursorResult[Any], result).rowcount == 1
