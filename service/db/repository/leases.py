"""Leases on work that one process at a time may do, by name.

The row says until when by its holder's clock. Others look at it again and again, and count what is left on a
clock that never jumps (`Sights`): a jump of the system's time neither ends a lease nor makes one last.
"""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from sqlalchemy import CursorResult, delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.db.tables import LeaseRow

SIGHTS = "lease sights"  # key in `Session.info`
RESTING = "resting"
"""A holder that nobody is: until then nobody does this work."""
LONGEST_REST_S = 3600.0


@dataclass(frozen=True)
class _Sight:
    holder: str
    until: datetime
    at: float  # when it was last seen like this, monotonic like the next one
    over_at: float


class Sights:
    """What one process has seen of leases; `clock` is monotonic."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[str, _Sight] = {}

    def over(self, row: LeaseRow, seconds: float) -> bool:
        """Whether a lease as the row has it, of about `seconds`, has run out."""
        now, seen = self._clock(), self._seen.get(row.name)
        if seen is not None and (seen.holder, seen.until) == (row.holder, row.until):
            over_at = seen.over_at
        else:
            left_s = (row.until - datetime.now(UTC)).total_seconds()
            rests = row.holder == RESTING
            over_at = now + min(left_s, LONGEST_REST_S if rests else 2 * seconds)
            if seen is not None and not rests:  # it was renewed since we last looked
                over_at = max(over_at, seen.at + seconds)
        self._seen[row.name] = _Sight(row.holder, row.until, now, over_at)
        return over_at < now

    def noted(self, name: str, holder: str, until: datetime, seconds: float) -> None:
        """We have written it ourselves."""
        now = self._clock()
        self._seen[name] = _Sight(holder, until, now, now + seconds)


def _sights(session: Session) -> Sights:
    return cast(Sights, session.info.setdefault(SIGHTS, Sights()))


def acquire(session: Session, name: str, holder: str, seconds: float) -> bool:
    """Take or renew the lease; False while another holder's has not run out."""
    row = session.get(LeaseRow, name, populate_existing=True)
    if row is not None and row.holder != holder and not _sights(session).over(row, seconds):
        return False
    until = datetime.now(UTC) + timedelta(seconds=seconds)
    if row is not None:
        as_seen = (LeaseRow.name == name, LeaseRow.holder == row.holder, LeaseRow.until == row.until)
        query = update(LeaseRow).where(*as_seen).values(holder=holder, until=until)
        query = query.execution_options(synchronize_session=False)
        if cast(CursorResult[Any], session.execute(query)).rowcount != 1:  # another was faster
            return False
    else:
        try:
            with session.begin_nested():
                session.add(LeaseRow(name=name, holder=holder, until=until))
        except IntegrityError:  # another was faster
            return False
    _sights(session).noted(name, holder, until, seconds)
    return True


def is_free(session: Session, name: str, seconds: float) -> bool:
    """Whether nobody has the lease, or it has run out."""
    row = session.get(LeaseRow, name)
    return row is None or _sights(session).over(row, seconds)


def rest(session: Session, name: str, holder: str, until: datetime) -> None:
    """Keep everybody, its holder included, from this work until then."""
    mine = update(LeaseRow).where(LeaseRow.name == name, LeaseRow.holder == holder)
    session.execute(mine.values(holder=RESTING, until=until))


def release(session: Session, name: str, holder: str) -> None:
    """Give the lease back, if it is ours."""
    session.execute(delete(LeaseRow).where(LeaseRow.name == name, LeaseRow.holder == holder))


def held(session: Session, names: Collection[str]) -> set[str]:
    """Those of the names that somebody has a lease on."""
    query = select(LeaseRow.name).where(LeaseRow.name.in_(names), LeaseRow.until >= datetime.now(UTC))
    return set(session.scalars(query))
