"""Runs of the job that retrains a recipe."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Index, Text
from sqlalchemy.orm import Mapped, mapped_column

from service.db.tables.base import Base, Hash, Label, Name, UtcDateTime, Uuid


class TrainingRunRow(Base):
    """One run: what it began with, how far it came, and what became of it."""

    __tablename__ = "training_runs"
    __table_args__ = (
        CheckConstraint("state IN ('running', 'passed', 'rejected', 'failed', 'interrupted')", name="state"),
        Index("ix_training_runs_recipe_id", "recipe", "id"),
    )

    id: Mapped[str] = mapped_column(Uuid, primary_key=True)
    recipe: Mapped[str] = mapped_column(Name)
    state: Mapped[str] = mapped_column(Name)
    step: Mapped[str] = mapped_column(Name)  # export, train, gate, release, and done
    cause: Mapped[str] = mapped_column(Label)  # a person, the schedule, drift
    who: Mapped[str] = mapped_column(Label)
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    folder: Mapped[str] = mapped_column(Text)  # logs, report and export, on the machine that ran it
    base_hash: Mapped[str | None] = mapped_column(Hash)
    candidate_hash: Mapped[str | None] = mapped_column(Hash)
    detail: Mapped[str | None] = mapped_column(Text)  # of a run that failed or was rejected: why
