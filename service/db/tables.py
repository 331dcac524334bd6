"""The tables. Valid on SQLite and PostgreSQL; changed only together with a migration."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    CheckConstraint,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

Hash = String(64)
Uuid = String(36)
Label = String(128)


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in time: aware in Python, UTC in the database, also where it keeps no zone (SQLite)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    # Named constraints, so that migrations can drop them on every database.
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class ModelRow(Base):
    """A bundle that has served here."""

    __tablename__ = "models"

    hash: Mapped[str] = mapped_column(Hash, primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    version: Mapped[str] = mapped_column(String(64))
    path: Mapped[str] = mapped_column(Text)
    registered_at: Mapped[datetime] = mapped_column(UtcDateTime)


class ThresholdRow(Base):
    """One version of the two limits of a recipe under a model and profile; never updated."""

    __tablename__ = "thresholds"
    __table_args__ = (
        UniqueConstraint("recipe", "model_hash", "profile", "version"),
        CheckConstraint("review <= reject", name="ordered"),
    )

    id: Mapped[str] = mapped_column(Uuid, primary_key=True)
    recipe: Mapped[str] = mapped_column(String(64))
    model_hash: Mapped[str] = mapped_column(ForeignKey("models.hash"))
    profile: Mapped[str] = mapped_column(String(64))
    version: Mapped[int]
    review: Mapped[float]
    reject: Mapped[float]
    who: Mapped[str] = mapped_column(Label)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    why: Mapped[str] = mapped_column(Text)


# Columns of equality filters; each has an index that also yields the page's order.
FILTERS = ("status", "verdict", "recipe", "line", "station", "lot", "serial")


class InspectionRow(Base):
    """One posted image and what became of it. `id` is a UUIDv7, so its order is the order of arrival."""

    __tablename__ = "inspections"
    __table_args__ = (
        *(Index(f"ix_inspections_{name}_id", name, "id") for name in FILTERS),
        CheckConstraint("status IN ('queued', 'running', 'done', 'failed', 'expired')", name="status"),
        # A verdict of the model needs a finished run: an error or a timeout is never a PASS.
        CheckConstraint(
            "(status = 'done' AND verdict IN ('PASS', 'REVIEW', 'REJECT'))"
            " OR (status = 'failed' AND verdict = 'ERROR') OR (status = 'expired' AND verdict = 'EXPIRED')"
            " OR (status IN ('queued', 'running') AND verdict IS NULL)",
            name="verdict",
        ),
    )

    id: Mapped[str] = mapped_column(Uuid, primary_key=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    status: Mapped[str] = mapped_column(String(16))
    verdict: Mapped[str | None] = mapped_column(String(16))
    score_raw: Mapped[float | None]
    score: Mapped[float | None]
    threshold_id: Mapped[str | None] = mapped_column(ForeignKey("thresholds.id"))
    review: Mapped[float | None]
    reject: Mapped[float | None]

    recipe: Mapped[str] = mapped_column(String(64))
    part_id: Mapped[str | None] = mapped_column(Label)
    serial: Mapped[str | None] = mapped_column(Label)
    lot: Mapped[str | None] = mapped_column(Label)
    line: Mapped[str | None] = mapped_column(Label)
    station: Mapped[str | None] = mapped_column(Label)
    captured_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    attributes: Mapped[dict[str, Any]] = mapped_column(JSON)

    profile: Mapped[str] = mapped_column(String(64))
    model_hash: Mapped[str] = mapped_column(ForeignKey("models.hash"))
    model_name: Mapped[str] = mapped_column(String(64))
    model_version: Mapped[str] = mapped_column(String(64))

    latency_ms: Mapped[dict[str, float]] = mapped_column(JSON)
    regions: Mapped[list[dict[str, Any]] | None] = mapped_column(JSON(none_as_null=True))

    image_sha256: Mapped[str] = mapped_column(Hash)
    image_media_type: Mapped[str] = mapped_column(String(32))
    image_height_px: Mapped[int]
    image_width_px: Mapped[int]
    heatmap_sha256: Mapped[str | None] = mapped_column(Hash)
    heatmap_media_type: Mapped[str | None] = mapped_column(String(32))
    heatmap_scale: Mapped[float | None]  # map value per count of the stored 16-bit image
    heatmap_max: Mapped[float | None]  # top of the colour scale that belongs to the model and profile
    reconstruction_sha256: Mapped[str | None] = mapped_column(Hash)
    reconstruction_media_type: Mapped[str | None] = mapped_column(String(32))

    error_code: Mapped[str | None] = mapped_column(String(64))
    error_detail: Mapped[str | None] = mapped_column(Text)
    idempotency_key: Mapped[str | None] = mapped_column(String(255), unique=True)
    request_digest: Mapped[str] = mapped_column(Hash)

    threshold: Mapped[ThresholdRow | None] = relationship(lazy="joined", viewonly=True)
