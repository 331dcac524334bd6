"""Sinks: who wants to be told, and of what."""

from collections.abc import Sequence

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from service.db.tables import LeaseRow, SinkRow


def get(session: Session, identifier: str) -> SinkRow | None:
    return session.get(SinkRow, identifier)


def by_name(session: Session, name: str) -> SinkRow | None:
    return session.scalar(select(SinkRow).where(SinkRow.name == name))


def all_by_name(session: Session) -> Sequence[SinkRow]:
    return session.scalars(select(SinkRow).order_by(SinkRow.name)).all()


def remove(session: Session, sink: SinkRow) -> None:
    """Delete a sink with its messages."""
    session.execute(delete(LeaseRow).where(LeaseRow.name == f"sink:{sink.id}"))
    session.delete(sink)
    session.flush()
