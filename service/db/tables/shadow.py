"""What shadows said of images that another model inspected."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from service.db.tables.base import Base, Hash, Name, UtcDateTime, Uuid

_VERDICTS = "('PASS', 'REVIEW', 'REJECT')"


class ShadowScoreRow(Base):
    """One inspection scored by one shadow, beside what the active model said of it at the time."""

    __tablename__ = "shadow_scores"
    __table_args__ = (
        Index("ix_shadow_scores_newest", "recipe", "model_hash", "inspection_id"),
        Index("ix_shadow_scores_disagrees", "recipe", "model_hash", "disagrees", "inspection_id"),
        CheckConstraint(f"verdict IN {_VERDICTS}", name="verdict"),
        CheckConstraint(f"active_verdict IN {_VERDICTS}", name="active_verdict"),
    )

    inspection_id: Mapped[str] = mapped_column(
        Uuid, ForeignKey("inspections.id", ondelete="CASCADE"), primary_key=True
    )
    model_hash: Mapped[str] = mapped_column(Hash, ForeignKey("models.hash"), primary_key=True)
    recipe: Mapped[str] = mapped_column(Name)
    profile: Mapped[str] = mapped_column(Name)
    score_raw: Mapped[float]
    score: Mapped[float]
    review: Mapped[float]  # its own limits in force
    reject: Mapped[float]
    verdict: Mapped[str] = mapped_column(Name)  # under those
    latency_ms: Mapped[float]  # of the engine
    active_hash: Mapped[str] = mapped_column(Hash, ForeignKey("models.hash"))
    active_score: Mapped[float]
    active_verdict: Mapped[str] = mapped_column(Name)
    active_latency_ms: Mapped[float | None]
    disagrees: Mapped[bool]  # verdict <> active_verdict
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
