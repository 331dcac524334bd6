"""Leases on work that one process at a time may do, by name."""

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from sqlalchemy import CursorResult, delete, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.db.tables import LeaseRow


def acquire(session: Session, name: str, holder: str, seconds: float) -> bool:
    """Take or renew the lease; False while another holder's has not run out."""
    now = datetime.now(UTC)
    until = now + timedelta(seconds=seconds)
    free = or_(LeaseRow.holder == holder, LeaseRow.until < now)
    query = update(LeaseRow).where(LeaseRow.name == name, free).values(holder=holder, until=until)
    if cast(CursorResult[Any], session.execute(query)).rowcount == 1:
        return True
    if session.get(LeaseRow, name) is not None:
        return False
    try:
        with session.begin_nested():
            session.add(LeaseRow(name=name, holder=holder, until=until))
    except IntegrityError:  # another was faster
        return False
    return True


def release(session: Session, name: str, holder: str) -> None:
    """Give the lease back, if it is ours."""
    session.execute(delete(LeaseRow).where(LeaseRow.name == name, LeaseRow.holder == holder))


def held(session: Session, names: Collection[str]) -> set[str]:
    """Those of the names that somebody has a lease on."""
    query = select(LeaseRow.name).where(LeaseRow.name.in_(names), LeaseRow.until >= datetime.now(UTC))
    return set(session.scalars(query))
