"""Inspections: what is asked of them and what changes them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

from sqlalchemy import CursorResult, func, select, update
from sqlalchemy.orm import Session

from service.db.tables import InspectionRow
from service.ids import first_id_at

PENDING = ("queued", "running")


@dataclass(frozen=True)
class Page:
    """Inspections newest first; `next_before` is the id to continue from, None on the last page."""

    rows: Sequence[InspectionRow]
    next_before: str | None


@dataclass(frozen=True)
class Filter:
    """Which inspections: equal columns (names of `tables.FILTERS`), and a half-open span of arrival."""

    equal: Mapping[str, str | bool] = field(default_factory=dict)
    since: datetime | None = None
    until: datetime | None = None


def get(session: Session, identifier: str) -> InspectionRow | None:
    return session.get(InspectionRow, identifier)


def by_idempotency_key(session: Session, key: str) -> InspectionRow | None:
    return session.scalar(select(InspectionRow).where(InspectionRow.idempotency_key == key))


def page(session: Session, wanted: Filter, *, limit: int, before: str | None = None) -> Page:
    """Up to `limit` inspections older than `before`; stable while new ones arrive."""
    query = select(InspectionRow).order_by(InspectionRow.id.desc()).limit(limit + 1)
    for name, value in wanted.equal.items():
        query = query.where(getattr(InspectionRow, name) == value)
    # Ids carry their time, so one index serves the filter, the span and the order.
    if wanted.since is not None:
        query = query.where(InspectionRow.id >= first_id_at(wanted.since))
    if wanted.until is not None:
        query = query.where(InspectionRow.id < first_id_at(wanted.until))
    if before is not None:
        query = query.where(InspectionRow.id < before)
    rows = session.scalars(query).all()
    return Page(rows[:limit], rows[limit - 1].id if len(rows) > limit else None)


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
