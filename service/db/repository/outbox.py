"""Messages to the outside, written in the transaction of what they tell of, and what became of them.

Every query is per sink and walks an index in the order of creation, however long the backlog is.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, cast

from sqlalchemy import CursorResult, Select, delete, func, or_, select, update
from sqlalchemy.orm import Session

from service.db.repository import leases
from service.db.tables import OutboxRow, SinkRow
from service.ids import first_id_at, id_time, new_id

ANNOUNCED = "announced"  # key in `Session.info` of a transaction that wrote messages
LONGEST_PAUSE_S = 3600.0  # of a message that was refused
Status = Literal["pending", "delivered", "dead"]


@dataclass(frozen=True)
class Result:
    """What became of one attempt; without `error` the message was delivered, without `next_at` it is dead."""

    id: str
    error: str | None = None
    counted: bool = True
    next_at: datetime | None = None


@dataclass(frozen=True)
class Depth:
    """Messages that wait, the time of the oldest, and messages that were given up."""

    pending: int
    oldest: datetime | None
    dead: int


def announce(session: Session, event: str, recipe: str, body: Mapping[str, Any]) -> int:
    """Put `body` in the outbox of every enabled sink that wants `event` of `recipe`; how many there were."""
    query = select(SinkRow).where(SinkRow.enabled, or_(SinkRow.recipe.is_(None), SinkRow.recipe == recipe))
    # A sink deleted before we commit would fail what the message tells of; the lock makes the deletion wait.
    sinks = session.scalars(query.with_for_update(read=True, key_share=True)).all()
    now, count = datetime.now(UTC), 0
    for sink in sinks:
        if event in sink.events:
            session.add(_row(sink.id, event, recipe, body, now))
            count += 1
    if count:
        session.info[ANNOUNCED] = True
    return count


def _row(sink_id: str, event: str, recipe: str, body: Mapping[str, Any], now: datetime) -> OutboxRow:
    return OutboxRow(
        id=new_id(),
        sink_id=sink_id,
        event=event,
        recipe=recipe,
        body=dict(body),
        status="pending",
        attempts=0,
        next_at=now,
        created_at=now,
    )


def _lease(sink_id: str) -> str:
    return f"sink:{sink_id}"


def waiting(session: Session, lease_s: float) -> list[str]:
    """Enabled sinks that have something due and that nobody serves or lets rest."""
    found = []
    for sink_id in session.scalars(select(SinkRow.id).where(SinkRow.enabled)).all():
        if not leases.is_free(session, _lease(sink_id), lease_s):
            continue
        if session.scalar(_due(sink_id, datetime.now(UTC)).limit(1)) is not None:
            found.append(sink_id)
    return found


def _due(sink_id: str, now: datetime) -> Select[OutboxRow]:
    """What may be sent; a pause that is longer than any is of a clock that has been put back since."""
    rested = or_(
        OutboxRow.attempts == 0,
        OutboxRow.next_at <= now,
        OutboxRow.next_at > now + timedelta(seconds=LONGEST_PAUSE_S),
    )
    return (
        select(OutboxRow)
        .where(OutboxRow.sink_id == sink_id, OutboxRow.status == "pending", rested)
        .order_by(OutboxRow.id)
    )


def take(
    session: Session, sink_id: str, holder: str, *, limit: int, lease_s: float
) -> tuple[SinkRow, Sequence[OutboxRow]] | None:
    """The next messages of a sink, oldest first, for the one process that holds its lease; None if not us."""
    sink = session.get(SinkRow, sink_id)
    if sink is None or not sink.enabled or not leases.acquire(session, _lease(sink_id), holder, lease_s):
        return None
    return sink, session.scalars(_due(sink_id, datetime.now(UTC)).limit(limit)).all()


def settle(session: Session, results: Iterable[Result]) -> None:
    """Note what became of attempts; a message that was settled meanwhile by another stays as it is."""
    for result in results:
        query = update(OutboxRow).where(OutboxRow.id == result.id, OutboxRow.status == "pending")
        counted = {"attempts": OutboxRow.attempts + 1} if result.counted else {}
        if result.error is None:
            values = {"status": "delivered", "delivered_at": datetime.now(UTC), "last_error": None}
        elif result.next_at is None:
            values = {"status": "dead", "last_error": result.error}
        else:
            values = {"last_error": result.error, "next_at": result.next_at}
        session.execute(query.values(**counted, **values))


def release(session: Session, sink_id: str, holder: str) -> None:
    """Let others serve the sink."""
    leases.release(session, _lease(sink_id), holder)


def rest(session: Session, sink_id: str, holder: str, until: datetime) -> None:
    """Keep everybody, us included, from the sink until then."""
    leases.rest(session, _lease(sink_id), holder, until)


def wake(session: Session, sink_id: str) -> None:
    """End a sink's rest: somebody has reason to think that it works again."""
    leases.release(session, _lease(sink_id), leases.RESTING)
    session.info[ANNOUNCED] = True


def requeue(session: Session, sink_id: str, message_id: str | None = None) -> int:
    """Send one message again, or all dead ones, from the first attempt; how many there were."""
    query = update(OutboxRow).where(OutboxRow.sink_id == sink_id)
    chosen = OutboxRow.status == "dead" if message_id is None else OutboxRow.id == message_id
    values = {"status": "pending", "attempts": 0, "next_at": datetime.now(UTC), "delivered_at": None}
    result = session.execute(query.where(chosen).values(**values))
    wake(session, sink_id)
    return cast(CursorResult[Any], result).rowcount


def deliveries(
    session: Session, sink_id: str, *, status: Status | None, limit: int, before: str | None
) -> Sequence[OutboxRow]:
    """Up to `limit` messages to a sink, newest first, older than `before`."""
    query = select(OutboxRow).where(OutboxRow.sink_id == sink_id)
    if status is not None:
        query = query.where(OutboxRow.status == status)
    if before is not None:
        query = query.where(OutboxRow.id < before)
    return session.scalars(query.order_by(OutboxRow.id.desc()).limit(limit)).all()


def get(session: Session, sink_id: str, message_id: str) -> OutboxRow | None:
    row = session.get(OutboxRow, message_id)
    return row if row is not None and row.sink_id == sink_id else None


def depth(session: Session, sink_id: str) -> Depth:
    def count(status: Status) -> int:
        query = select(func.count()).where(OutboxRow.sink_id == sink_id, OutboxRow.status == status)
        return session.scalar(query) or 0

    oldest = session.scalar(
        select(func.min(OutboxRow.id)).where(OutboxRow.sink_id == sink_id, OutboxRow.status == "pending")
    )
    return Depth(count("pending"), None if oldest is None else id_time(oldest), count("dead"))


def forget(session: Session, sink_id: str, before: datetime, limit: int = 1000) -> int:
    """Remove delivered messages that are older, in portions; dead ones stay until somebody decides."""
    old = select(OutboxRow.id).where(
        OutboxRow.sink_id == sink_id, OutboxRow.status == "delivered", OutboxRow.id < first_id_at(before)
    )
    query = delete(OutboxRow).where(OutboxRow.id.in_(old.order_by(OutboxRow.id).limit(limit)))
    return cast(CursorResult[Any], session.execute(query)).rowcount
