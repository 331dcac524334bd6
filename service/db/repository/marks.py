"""Marks on training images, by their rank in the bundle's audit."""

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.db.tables import TrainingMarkRow


def get(session: Session, model_hash: str, rank: int) -> TrainingMarkRow | None:
    return session.get(TrainingMarkRow, (model_hash, rank))


def put(session: Session, row: TrainingMarkRow, mark: str | None, who: str) -> TrainingMarkRow | None:
    """Let a mark stand on the image that `row` names, or none -> what stands now."""
    found = session.get(TrainingMarkRow, (row.model_hash, row.rank), with_for_update=True)
    if mark is None:
        if found is not None:
            session.delete(found)
        return None
    if found is None:
        session.add(found := row)
    found.mark, found.who, found.marked_at = mark, who, datetime.now(UTC)
    session.flush()
    return found


def page(session: Session, model_hash: str, *, after: int, limit: int) -> Sequence[TrainingMarkRow]:
    """Marks by rank, those of ranks above `after`."""
    query = select(TrainingMarkRow).where(
        TrainingMarkRow.model_hash == model_hash, TrainingMarkRow.rank > after
    )
    return session.scalars(query.order_by(TrainingMarkRow.rank).limit(limit)).all()


def counts(session: Session, model_hash: str) -> dict[str, int]:
    """How many images carry which mark."""
    query = select(TrainingMarkRow.mark, func.count()).where(TrainingMarkRow.model_hash == model_hash)
    found = {mark: count for mark, count in session.execute(query.group_by(TrainingMarkRow.mark))}
    return {"defective": found.get("defective", 0), "fine": found.get("fine", 0)}


def with_hash(session: Session) -> Sequence[TrainingMarkRow]:
    """All marks of images whose sha256 is known, the last marked last."""
    query = select(TrainingMarkRow).where(TrainingMarkRow.sha256.is_not(None))
    return session.scalars(query.order_by(TrainingMarkRow.marked_at)).all()
