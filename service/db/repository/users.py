"""People, their browsers' sessions, and how often they got their password wrong."""

from datetime import UTC, datetime, timedelta
from typing import Literal

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from service.access.principal import Principal
from service.db.repository import audit, keys
from service.db.tables import SessionRow, UserRow
from service.errors import InspectionError
from service.ids import new_id

Role = Literal["operator", "admin"]
_FREE_TRIES = 5
_LONGEST_LOCK = timedelta(minutes=15)


def add(session: Session, who: Principal, name: str, role: Role, password_hash: str) -> UserRow:
    """A person who may sign in; 409 if the name is taken."""
    name = name.lower()
    if name in keys.RESERVED or by_name(session, name) is not None:
        raise InspectionError(409, "name-taken", f"there is a user {name} already; choose another name")
    now = datetime.now(UTC)
    row = UserRow(id=new_id(), name=name, role=role, password_hash=password_hash, created_at=now)
    row.disabled, row.failed_sign_ins = False, 0
    session.add(row)
    session.flush()
    audit.record(session, who, "users.add", f"user/{name}", {"role": role})
    if role == "admin":
        keys.end_first_start(session)
    return row


def everyone(session: Session) -> list[UserRow]:
    return list(session.scalars(select(UserRow).order_by(UserRow.name)))


def by_name(session: Session, name: str, *, lock: bool = False) -> UserRow | None:
    """The user, if there is one; `lock` lets no other transaction count their failures meanwhile."""
    query = select(UserRow).where(UserRow.name == name.lower())
    return session.scalars(query.with_for_update() if lock else query).one_or_none()


def get(session: Session, name: str) -> UserRow:
    row = by_name(session, name)
    if row is None:
        raise InspectionError(404, "no-such-user", f"there is no user {name.lower()}")
    return row


def set_password(session: Session, who: Principal, name: str, password_hash: str) -> UserRow:
    """Replace the password, lift a lock, and sign the person out everywhere."""
    row = get(session, name)
    row.password_hash, row.failed_sign_ins, row.locked_until = password_hash, 0, None
    end_sessions(session, row.id)
    audit.record(session, who, "users.set-password", f"user/{row.name}")
    return row


def set_role(session: Session, who: Principal, name: str, role: Role) -> UserRow:
    row = get(session, name)
    audit.record(session, who, "users.set-role", f"user/{row.name}", {"from": row.role, "to": role})
    row.role = role
    end_sessions(session, row.id)
    if role == "admin":
        keys.end_first_start(session)
    return row


def set_disabled(session: Session, who: Principal, name: str, disabled: bool) -> UserRow:
    """Keep a person out, or let them in again; what they did stays under their name."""
    row = get(session, name)
    row.disabled = disabled
    end_sessions(session, row.id)
    audit.record(session, who, "users.disable" if disabled else "users.enable", f"user/{row.name}")
    return row


def note_failure(row: UserRow, now: datetime) -> None:
    """Count a wrong password; from the fifth on, each doubles the time until the next try counts."""
    row.failed_sign_ins += 1
    if (beyond := row.failed_sign_ins - _FREE_TRIES) >= 0:
        row.locked_until = now + min(timedelta(seconds=2 ** min(beyond + 2, 12)), _LONGEST_LOCK)


def locked(row: UserRow, now: datetime) -> bool:
    """Whether a password counts for nothing now; a longer lock than any is of a clock put back since."""
    return row.locked_until is not None and now < row.locked_until <= now + _LONGEST_LOCK


def note_success(row: UserRow, now: datetime) -> None:
    row.failed_sign_ins, row.locked_until, row.last_sign_in_at = 0, None, now


# --- sessions ---------------------------------------------------------------------------------------


def open_session(
    session: Session, user: UserRow, digest: str, lasts: timedelta, address: str | None
) -> SessionRow:
    """A session known by the digest of its token; those that have ended are swept on the way."""
    now = datetime.now(UTC)
    session.execute(delete(SessionRow).where(SessionRow.expires_at <= now))
    row = SessionRow(hash=digest, user_id=user.id, created_at=now, seen_at=now, expires_at=now + lasts)
    row.address = address
    session.add(row)
    return row


def find_session(session: Session, digest: str) -> tuple[SessionRow, UserRow] | None:
    query = select(SessionRow, UserRow).join(UserRow, UserRow.id == SessionRow.user_id)
    found = session.execute(query.where(SessionRow.hash == digest)).one_or_none()
    return None if found is None else (found[0], found[1])


def take_session(session: Session, digest: str) -> UserRow | None:
    """End the session and tell whose it was; only one caller gets it."""
    found = find_session(session, digest)
    ended = session.execute(delete(SessionRow).where(SessionRow.hash == digest))
    if found is None or not getattr(ended, "rowcount", 0) or found[0].expires_at <= datetime.now(UTC):
        return None
    return found[1]


def touch_session(session: Session, digest: str, now: datetime, every: timedelta) -> None:
    """Note that a session was used, at most once in `every`."""
    stale = (SessionRow.hash == digest, SessionRow.seen_at <= now - every)
    session.execute(update(SessionRow).where(*stale).values(seen_at=now))


def end_sessions(session: Session, user_id: str) -> None:
    session.execute(delete(SessionRow).where(SessionRow.user_id == user_id))
