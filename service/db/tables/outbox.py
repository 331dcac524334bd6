"""What is to be told to others, and leases on work that only one process may do."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, CheckConstraint, ForeignKey, Index, Text, true
from sqlalchemy.orm import Mapped, mapped_column

from service.db.tables.base import Base, Label, Name, UtcDateTime, Uuid


class SinkRow(Base):
    """Somebody who wants to know: a webhook or an MQTT topic."""

    __tablename__ = "sinks"
    __table_args__ = (CheckConstraint("kind IN ('webhook', 'mqtt')", name="kind"),)

    id: Mapped[str] = mapped_column(Uuid, primary_key=True)
    kind: Mapped[str] = mapped_column(Name)
    name: Mapped[str] = mapped_column(Label, unique=True)
    address: Mapped[str] = mapped_column(Text)
    secret: Mapped[str] = mapped_column(Text)  # signs webhooks; the password of an MQTT broker
    recipe: Mapped[str | None] = mapped_column(Name)  # None: all
    events: Mapped[list[str]] = mapped_column(JSON)
    enabled: Mapped[bool] = mapped_column(default=True, server_default=true())
    created_by: Mapped[str] = mapped_column(Label)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class OutboxRow(Base):
    """One message to one sink, written in the transaction of what it tells of."""

    __tablename__ = "outbox"
    __table_args__ = (
        CheckConstraint("status IN ('pending', 'delivered', 'dead')", name="status"),
        # Everything is asked per sink, in the order of creation.
        Index("ix_outbox_sink_id_status_id", "sink_id", "status", "id"),
        Index("ix_outbox_sink_id_id", "sink_id", "id"),
    )

    id: Mapped[str] = mapped_column(Uuid, primary_key=True)
    sink_id: Mapped[str] = mapped_column(ForeignKey("sinks.id", ondelete="CASCADE"))
    event: Mapped[str] = mapped_column(Name)
    recipe: Mapped[str] = mapped_column(Name)
    body: Mapped[dict[str, Any]] = mapped_column(JSON)
    status: Mapped[str] = mapped_column(Name, default="pending")
    attempts: Mapped[int] = mapped_column(default=0)
    next_at: Mapped[datetime] = mapped_column(UtcDateTime)
    last_error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    delivered_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class LeaseRow(Base):
    """A kind of work that one process at a time may do, and who does it until when."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(Name, primary_key=True)
    holder: Mapped[str] = mapped_column(Label)
    until: Mapped[datetime] = mapped_column(UtcDateTime)
