"""Inspections, what people say of them, and the attributes they are found by."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, CheckConstraint, ForeignKey, Index, String, Text, UniqueConstraint, false
from sqlalchemy.orm import Mapped, mapped_column, relationship

from service.db.tables.base import Base, Hash, Label, UtcDateTime, Uuid
from service.db.tables.recipes import ThresholdRow

# Columns of equality filters; each has an index that also yields the page's order.
FILTERS = (
    *("status", "verdict", "recipe", "line", "station", "lot", "serial"),
    *("part_id", "model_hash", "profile", "review_state", "disagreement", "wanted"),
)
# What the index by margin carries along. In that order the next row lies anywhere in the table, so filters
# are applied to the index. Lots and serials are selective by themselves, and PostgreSQL takes no entry that
# is longer than 2.7 kB.
CARRIED = (
    *("status", "verdict", "recipe", "line", "station", "part_id", "model_hash", "profile"),
    *("review_state", "disagreement", "wanted", "score", "captured_at"),
)
# A comparison with NULL is neither true nor false, and what is not false passes: so NULL is named.
VERDICTS = (
    "(status = 'done' AND verdict IS NOT NULL AND verdict IN ('PASS', 'REVIEW', 'REJECT'))"
    " OR (status = 'failed' AND verdict IS NOT NULL AND verdict = 'ERROR')"
    " OR (status = 'expired' AND verdict IS NOT NULL AND verdict = 'EXPIRED')"
    " OR (status IN ('queued', 'running') AND verdict IS NULL)"
)


class InspectionRow(Base):
    """One posted image and what became of it. `id` is a UUIDv7, so its order is the order of arrival."""

    __tablename__ = "inspections"
    __table_args__ = (
        *(Index(f"ix_inspections_{name}_id", name, "id") for name in FILTERS),
        CheckConstraint("status IN ('queued', 'running', 'done', 'failed', 'expired')", name="status"),
        # A verdict of the model needs a finished run: an error or a timeout is never a PASS.
        CheckConstraint(VERDICTS, name="verdict"),
        CheckConstraint("priority IN ('camera', 'backfill')", name="priority"),
        CheckConstraint("review_state IN ('none', 'good', 'defective', 'unsure')", name="review_state"),
        # The review queue: what is open, nearest to a threshold first.
        Index("ix_inspections_queue", "review_state", "wanted", "margin", "id"),
        *(Index(f"ix_inspections_{name}_id", name, "id") for name in ("score", "captured_at")),
        Index("ix_inspections_margin", "margin", "id", *CARRIED),
    )

    id: Mapped[str] = mapped_column(Uuid, primary_key=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    deadline_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    priority: Mapped[str] = mapped_column(String(16), default="camera", server_default="camera")
    attempts: Mapped[int] = mapped_column(default=0, server_default="0")
    worker: Mapped[str | None] = mapped_column(Label)  # who ran it
    status: Mapped[str] = mapped_column(String(16))
    verdict: Mapped[str | None] = mapped_column(String(16))
    score_raw: Mapped[float | None]
    score: Mapped[float | None]
    threshold_id: Mapped[str | None] = mapped_column(ForeignKey("thresholds.id"))
    review: Mapped[float | None]
    reject: Mapped[float | None]
    margin: Mapped[float | None]  # distance of the score from the nearer limit

    wanted: Mapped[bool] = mapped_column(default=False, server_default=false())  # a person should look
    audit: Mapped[bool] = mapped_column(default=False, server_default=false())  # a PASS drawn at random
    review_state: Mapped[str] = mapped_column(String(16), default="none", server_default="none")
    review_revision: Mapped[int] = mapped_column(default=0, server_default="0")
    disagreement: Mapped[bool] = mapped_column(default=False, server_default=false())  # person against model
    claimed_by: Mapped[str | None] = mapped_column(Label)
    claimed_until: Mapped[datetime | None] = mapped_column(UtcDateTime)

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

    image_sha256: Mapped[str] = mapped_column(Hash, index=True)
    image_bytes: Mapped[int | None]
    image_media_type: Mapped[str] = mapped_column(String(32))
    image_height_px: Mapped[int]
    image_width_px: Mapped[int]
    brightness: Mapped[float | None]  # mean gray value, 0 to 1
    sharpness: Mapped[float | None]  # variance of the Laplacian of the gray image in 0 to 1
    mask_id: Mapped[str | None] = mapped_column(ForeignKey("masks.id"))
    heatmap_sha256: Mapped[str | None] = mapped_column(Hash, index=True)
    heatmap_media_type: Mapped[str | None] = mapped_column(String(32))
    heatmap_scale: Mapped[float | None]  # map value per count of the stored 16-bit image
    heatmap_max: Mapped[float | None]  # top of the colour scale that belongs to the model and profile
    reconstruction_sha256: Mapped[str | None] = mapped_column(Hash, index=True)
    reconstruction_media_type: Mapped[str | None] = mapped_column(String(32))

    error_code: Mapped[str | None] = mapped_column(String(64))
    error_detail: Mapped[str | None] = mapped_column(Text)
    idempotency_key: Mapped[str | None] = mapped_column(String(255), unique=True)
    request_digest: Mapped[str] = mapped_column(Hash)
    request_id: Mapped[str | None] = mapped_column(String(64))  # of the request that it came with
    trace_parent: Mapped[str | None] = mapped_column(String(64))  # W3C Trace Context

    threshold: Mapped[ThresholdRow | None] = relationship(lazy="joined", viewonly=True)


class AttributeRow(Base):
    """One free-form attribute as text, so that inspections are found by it."""

    __tablename__ = "inspection_attributes"
    __table_args__ = (Index("ix_inspection_attributes_found", "name", "value", "inspection_id"),)

    inspection_id: Mapped[str] = mapped_column(
        ForeignKey("inspections.id", ondelete="CASCADE"), primary_key=True
    )
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[str] = mapped_column(String(256))  # longer ones are cut: enough to find them


class ReviewRow(Base):
    """What a person said of an inspection; only ever added, an undo is a row of its own."""

    __tablename__ = "reviews"
    __table_args__ = (
        UniqueConstraint("inspection_id", "revision"),
        CheckConstraint("decision IN ('good', 'defective', 'unsure', 'withdrawn')", name="decision"),
    )

    id: Mapped[str] = mapped_column(Uuid, primary_key=True)
    inspection_id: Mapped[str] = mapped_column(ForeignKey("inspections.id"))
    revision: Mapped[int]  # 1 for the first
    decision: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(String(64))
    comment: Mapped[str | None] = mapped_column(Text)
    who: Mapped[str] = mapped_column(Label)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
