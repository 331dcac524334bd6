"""Bundles that this service knows, and what was done with them."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, CheckConstraint, ForeignKey, Text
from sqlalchemy.orm import Mapped, mapped_column

from service.db.tables.base import Base, Hash, Label, Name, UtcDateTime, Uuid


class ModelRow(Base):
    """A registered bundle, by the hash of its manifest."""

    __tablename__ = "models"
    __table_args__ = (CheckConstraint("state IN ('candidate', 'shadow', 'active', 'retired')", name="state"),)

    hash: Mapped[str] = mapped_column(Hash, primary_key=True)
    name: Mapped[str] = mapped_column(Name)
    version: Mapped[str] = mapped_column(Name)
    path: Mapped[str] = mapped_column(Text)
    registered_at: Mapped[datetime] = mapped_column(UtcDateTime)
    registered_by: Mapped[str | None] = mapped_column(Label)
    state: Mapped[str] = mapped_column(Name, default="candidate", server_default="candidate")
    manifest: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))


class ModelEventRow(Base):
    """One step in a bundle's life: registered, shadowing, activated, rolled back, retired; never updated."""

    __tablename__ = "model_events"

    id: Mapped[str] = mapped_column(Uuid, primary_key=True)
    recipe: Mapped[str | None] = mapped_column(Name, index=True)
    model_hash: Mapped[str] = mapped_column(ForeignKey("models.hash"), index=True)
    previous_hash: Mapped[str | None] = mapped_column(ForeignKey("models.hash"), index=True)
    action: Mapped[str] = mapped_column(Name)
    who: Mapped[str] = mapped_column(Label)
    why: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
