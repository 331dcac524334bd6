"""The audit log: rows are added in the transaction of the change they tell of, and never touched again."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from service import logs
from service.access.principal import Principal
from service.db.tables import AuditRow
from service.ids import first_id_at, new_id


def record(
    session: Session,
    principal: Principal,
    action: str,
    target: str,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Note that `principal` did `action` ("thresholds.set") to `target` ("recipe/bolt"), in this request."""
    session.add(
        AuditRow(
            id=new_id(),
            at=datetime.now(UTC),
            who=principal.name,
            kind=principal.kind,
            action=action,
            target=target,
            detail=dict(detail or {}),
            request_id=logs.request_id.get() or None,
            address=logs.address.get() or None,
        )
    )


@dataclass(frozen=True)
class Wanted:
    """Which rows to show; all that is given must hold."""

    who: str | None = None
    action: str | None = None
    target: str | None = None
    since: datetime | None = None
    until: datetime | None = None


def page(
    session: Session, wanted: Wanted, limit: int, before: str | None
) -> tuple[list[AuditRow], str | None]:
    """One page, newest first, of rows older than `before` -> the rows, and where the next page starts."""
    query = select(AuditRow).order_by(AuditRow.id.desc()).limit(limit + 1)
    for name in ("who", "action", "target"):
        if (value := getattr(wanted, name)) is not None:
            query = query.where(getattr(AuditRow, name) == value)
    if wanted.since is not None:
        query = query.where(AuditRow.id >= first_id_at(wanted.since))
    if wanted.until is not None:
        query = query.where(AuditRow.id < first_id_at(wanted.until))
    if before is not None:
        query = query.where(AuditRow.id < before)
    rows = list(session.scalars(query))
    more = len(rows) > limit
    return rows[:limit], rows[limit - 1].id if more else None
