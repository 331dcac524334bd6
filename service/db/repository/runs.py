"""Runs of the job that retrains a recipe."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.db.tables import InspectionRow, TrainingRunRow
from service.ids import new_id

Outcome = Literal["passed", "rejected", "failed", "interrupted"]


def begin(
    session: Session, recipe: str, *, cause: str, who: str, folder: str, base_hash: str | None
) -> TrainingRunRow:
    """A run that starts now; what ran before and never ended was interrupted."""
    for row in _unfinished(session, recipe):
        end(row, "interrupted", detail=row.detail or "it ended with the process or machine that ran it")
    row = TrainingRunRow(
        id=new_id(),
        recipe=recipe,
        state="running",
        step="export",
        cause=cause,
        who=who,
        started_at=datetime.now(UTC),
        folder=folder,
        base_hash=base_hash,
    )
    session.add(row)
    session.flush()
    return row


def end(row: TrainingRunRow, outcome: Outcome, *, detail: str | None = None) -> None:
    row.state, row.detail, row.finished_at = outcome, detail, datetime.now(UTC)


def get(session: Session, identifier: str) -> TrainingRunRow:
    return session.scalars(select(TrainingRunRow).where(TrainingRunRow.id == identifier)).one()


def latest(session: Session, recipe: str) -> TrainingRunRow | None:
    query = select(TrainingRunRow).where(TrainingRunRow.recipe == recipe)
    return session.scalar(query.order_by(TrainingRunRow.id.desc()).limit(1))


def newest(session: Session) -> Sequence[tuple[str, str, datetime]]:
    """(recipe, state, end of the newest run of that state; of a running one, its beginning)."""
    at = func.max(func.coalesce(TrainingRunRow.finished_at, TrainingRunRow.started_at))
    query = select(TrainingRunRow.recipe, TrainingRunRow.state, at.label("at"))
    rows = session.execute(query.group_by(TrainingRunRow.recipe, TrainingRunRow.state)).all()
    return [(row.recipe, row.state, row.at) for row in rows]


def passed(session: Session, recipe: str, model_hash: str) -> bool:
    """Whether a run of the recipe made this model, and the gate let it pass."""
    made = (TrainingRunRow.candidate_hash == model_hash, TrainingRunRow.state == "passed")
    query = select(TrainingRunRow.id).where(TrainingRunRow.recipe == recipe, *made)
    return session.scalar(query.limit(1)) is not None


def to_be_taken_up(row: TrainingRunRow) -> bool:
    """Whether it never came to an end: whoever holds the recipe's lease may say so of a running one."""
    return row.state in ("running", "interrupted")


def listed(
    session: Session,
    recipe: str | None = None,
    *,
    state: str | None = None,
    before: str | None = None,
    limit: int = 50,
) -> Sequence[TrainingRunRow]:
    """Newest first; those older than the run `before`."""
    query = select(TrainingRunRow).order_by(TrainingRunRow.id.desc()).limit(limit)
    if recipe is not None:
        query = query.where(TrainingRunRow.recipe == recipe)
    if state is not None:
        query = query.where(TrainingRunRow.state == state)
    if before is not None:
        query = query.where(TrainingRunRow.id < before)
    return session.scalars(query).all()


def find(session: Session, identifier: str) -> TrainingRunRow | None:
    return session.scalar(select(TrainingRunRow).where(TrainingRunRow.id == identifier))


def _unfinished(session: Session, recipe: str) -> Sequence[TrainingRunRow]:
    running = (TrainingRunRow.recipe == recipe, TrainingRunRow.state == "running")
    return session.scalars(select(TrainingRunRow).where(*running)).all()


def waiting(session: Session, *, most: int) -> int:
    """Camera images that have not ended, counted up to `most`."""
    ours = (InspectionRow.status.in_(("queued", "running")), InspectionRow.priority == "camera")
    some = select(InspectionRow.id).where(*ours).limit(most).subquery()
    return session.scalar(select(func.count()).select_from(some)) or 0
