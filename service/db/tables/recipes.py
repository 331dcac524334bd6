"""Products and the limits and masks that apply to them; limits and masks are versions, never updated."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, CheckConstraint, ForeignKey, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from service.db.tables.base import Base, Hash, Label, Name, UtcDateTime, Uuid


class RecipeRow(Base):
    """A product: which bundle and profile inspect it, how fast it must go, how long it is kept."""

    __tablename__ = "recipes"
    __table_args__ = (
        CheckConstraint("audit_rate >= 0 AND audit_rate <= 1", name="audit_rate"),
        CheckConstraint("latency_budget_ms IS NULL OR latency_budget_ms > 0", name="latency_budget_ms"),
        CheckConstraint("retention_days IS NULL OR retention_days > 0", name="retention_days"),
    )

    name: Mapped[str] = mapped_column(Name, primary_key=True)
    product: Mapped[str | None] = mapped_column(Label)
    description: Mapped[str] = mapped_column(Text, default="", server_default="")
    model_hash: Mapped[str | None] = mapped_column(ForeignKey("models.hash"))  # None: the service's own
    shadow_hash: Mapped[str | None] = mapped_column(ForeignKey("models.hash"))
    profile: Mapped[str | None] = mapped_column(Name)
    mask_id: Mapped[str | None] = mapped_column(ForeignKey("masks.id"))
    latency_budget_ms: Mapped[int | None]  # from acceptance; what takes longer is EXPIRED
    retention_days: Mapped[int | None]  # None: kept forever
    audit_rate: Mapped[float] = mapped_column(default=0.02, server_default="0.02")  # PASSes a person looks at
    reasons: Mapped[list[str]] = mapped_column(JSON, default=list)  # reason codes of reviews, in key order
    attributes_schema: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))  # JSON Schema
    revision: Mapped[int] = mapped_column(default=1, server_default="1")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
    archived_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class MaskRow(Base):
    """One version of a recipe's ignore mask, a PNG among the blobs: white is not inspected."""

    __tablename__ = "masks"
    __table_args__ = (UniqueConstraint("recipe", "version"),)

    id: Mapped[str] = mapped_column(Uuid, primary_key=True)
    recipe: Mapped[str] = mapped_column(Name)
    version: Mapped[int]
    sha256: Mapped[str] = mapped_column(Hash)
    height_px: Mapped[int]
    width_px: Mapped[int]
    share: Mapped[float]  # of the image that is ignored
    who: Mapped[str] = mapped_column(Label)
    why: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class ThresholdRow(Base):
    """One version of the two limits of a recipe under a model and profile; never updated."""

    __tablename__ = "thresholds"
    __table_args__ = (
        UniqueConstraint("recipe", "model_hash", "profile", "version"),
        CheckConstraint("review <= reject", name="ordered"),
    )

    id: Mapped[str] = mapped_column(Uuid, primary_key=True)
    recipe: Mapped[str] = mapped_column(Name)
    model_hash: Mapped[str] = mapped_column(ForeignKey("models.hash"))
    profile: Mapped[str] = mapped_column(Name)
    version: Mapped[int]
    review: Mapped[float]
    reject: Mapped[float]
    who: Mapped[str] = mapped_column(Label)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    why: Mapped[str] = mapped_column(Text)
