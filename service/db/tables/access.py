"""Who may do what - keys of machines, people and their sessions - and what they did."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, CheckConstraint, ForeignKey, String, Text, false
from sqlalchemy.orm import Mapped, mapped_column

from service.db.tables.base import Base, Hash, Label, Name, UtcDateTime, Uuid

_SCOPES = "('camera', 'operator', 'admin')"


class ApiKeyRow(Base):
    """A machine's key; only the sha256 of its 256 random bits is kept."""

    __tablename__ = "api_keys"
    __table_args__ = (CheckConstraint(f"scope IN {_SCOPES}", name="scope"),)

    id: Mapped[str] = mapped_column(Uuid, primary_key=True)
    name: Mapped[str] = mapped_column(Label, index=True)  # two may be valid under one name while rotating
    scope: Mapped[str] = mapped_column(Name)
    prefix: Mapped[str] = mapped_column(String(16))  # shown, to tell keys apart
    hash: Mapped[str] = mapped_column(Hash, unique=True)
    created_by: Mapped[str] = mapped_column(Label)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class UserRow(Base):
    """A person; the password is an argon2id hash."""

    __tablename__ = "users"
    __table_args__ = (CheckConstraint(f"role IN {_SCOPES}", name="role"),)

    id: Mapped[str] = mapped_column(Uuid, primary_key=True)
    name: Mapped[str] = mapped_column(Label, unique=True)  # lower case
    role: Mapped[str] = mapped_column(Name)
    password_hash: Mapped[str | None] = mapped_column(Text)  # None: signs in through OIDC only
    disabled: Mapped[bool] = mapped_column(default=False, server_default=false())
    failed_sign_ins: Mapped[int] = mapped_column(default=0, server_default="0")
    locked_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    last_sign_in_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class SessionRow(Base):
    """A signed-in browser; the cookie's token is kept as its sha256."""

    __tablename__ = "sessions"

    hash: Mapped[str] = mapped_column(Hash, primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    seen_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    address: Mapped[str | None] = mapped_column(Label)


class AuditRow(Base):
    """One change or sign-in; rows are only ever added."""

    __tablename__ = "audit_log"

    id: Mapped[str] = mapped_column(Uuid, primary_key=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    who: Mapped[str] = mapped_column(Label, index=True)
    kind: Mapped[str] = mapped_column(Name)  # key, user, system
    action: Mapped[str] = mapped_column(Name, index=True)
    target: Mapped[str] = mapped_column(Text)
    detail: Mapped[dict[str, Any]] = mapped_column(JSON)
    request_id: Mapped[str | None] = mapped_column(Name)
    address: Mapped[str | None] = mapped_column(Label)
