"""Keys of machines: at most two valid ones under a name, one old and one new while rotating."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from service.access import tokens
from service.access.principal import SYSTEM, Principal, Scope
from service.db.repository import audit
from service.db.tables import ApiKeyRow, UserRow
from service.errors import InspectionError
from service.ids import new_id

FIRST_START = "first-start"
RESERVED = frozenset({FIRST_START, SYSTEM.name, "anybody"})
_SHOWN = len(tokens.KEY_PREFIX) + 6
_FIRST_START_HOURS = 24


def valid(row: ApiKeyRow, now: datetime) -> bool:
    return row.revoked_at is None and (row.expires_at is None or row.expires_at > now)


def create(
    session: Session, who: Principal, name: str, scope: Scope, expires_at: datetime | None = None
) -> tuple[ApiKeyRow, str]:
    """A key under a name that has no valid one -> its row and the key itself, which is not stored."""
    if name in RESERVED:
        raise InspectionError(409, "name-taken", f"the name {name} is the service's own; choose another")
    if _valid(session, name):
        detail = f"{name} has a valid key; rotate that one, revoke it, or choose another name"
        raise InspectionError(409, "key-exists", detail)
    row, key = _add(session, who, name, scope, expires_at)
    audit.record(session, who, "keys.create", f"key/{name}", {"id": row.id, "scope": scope})
    if scope == "admin":
        end_first_start(session)
    return row, key


def rotate(
    session: Session, who: Principal, name: str, overlap: timedelta, expires_at: datetime | None = None
) -> tuple[ApiKeyRow, str]:
    """A second key with the name and scope of the valid one, which ends after `overlap`."""
    found = _valid(session, name)
    if not found:
        raise InspectionError(404, "no-such-key", f"{name} has no valid key; create one")
    if len(found) > 1:
        detail = f"{name} has two valid keys already; wait until the older one ends, or revoke it"
        raise InspectionError(409, "key-exists", detail)
    (old,) = found
    ends = datetime.now(UTC) + overlap
    old.expires_at = ends if old.expires_at is None else min(ends, old.expires_at)
    row, key = _add(session, who, name, _scope(old), expires_at)
    detail_ = {"old": old.id, "new": row.id, "old_ends": old.expires_at.isoformat()}
    audit.record(session, who, "keys.rotate", f"key/{name}", detail_)
    return row, key


def revoke(session: Session, who: Principal, rows: Sequence[ApiKeyRow]) -> None:
    """End keys at once; those that were revoked before stay as they are."""
    for row in rows:
        if row.revoked_at is None:
            row.revoked_at = datetime.now(UTC)
            audit.record(session, who, "keys.revoke", f"key/{row.name}", {"id": row.id})


def named(session: Session, name: str) -> list[ApiKeyRow]:
    """All keys that there ever were under a name, oldest first; 404 if none."""
    rows = list(session.scalars(select(ApiKeyRow).where(ApiKeyRow.name == name).order_by(ApiKeyRow.id)))
    if not rows:
        raise InspectionError(404, "no-such-key", f"there is no key named {name}")
    return rows


def get(session: Session, identifier: str) -> ApiKeyRow:
    row = session.get(ApiKeyRow, identifier)
    if row is None:
        raise InspectionError(404, "no-such-key", f"there is no key with the id {identifier}")
    return row


def everything(session: Session) -> list[ApiKeyRow]:
    """All keys, by name and age."""
    return list(session.scalars(select(ApiKeyRow).order_by(ApiKeyRow.name, ApiKeyRow.id)))


def by_hash(session: Session, digest: str) -> ApiKeyRow | None:
    row = session.scalars(select(ApiKeyRow).where(ApiKeyRow.hash == digest)).one_or_none()
    return row if row is not None and tokens.same(row.hash, digest) else None


def touch(session: Session, digest: str, now: datetime, every: timedelta) -> None:
    """Note that a key was used, at most once in `every`."""
    stale = or_(ApiKeyRow.last_used_at.is_(None), ApiKeyRow.last_used_at <= now - every)
    session.execute(update(ApiKeyRow).where(ApiKeyRow.hash == digest, stale).values(last_used_at=now))


def untouched(session: Session) -> bool:
    """Whether nobody was ever let in: no user, and no key but that of the first start."""
    keys = select(func.count()).select_from(ApiKeyRow).where(ApiKeyRow.name != FIRST_START)
    users = select(func.count()).select_from(UserRow)
    return not session.scalar(keys) and not session.scalar(users)


def first_start(session: Session) -> str | None:
    """An admin key for whoever sets the service up, or None if somebody did; it ends with the first admin."""
    if not untouched(session):
        return None
    ends = datetime.now(UTC) + timedelta(hours=_FIRST_START_HOURS)
    return _add(session, SYSTEM, FIRST_START, "admin", ends)[1]


def end_first_start(session: Session) -> None:
    """There is an admin now: what was printed at the first start is worth nothing any more."""
    open_ = (ApiKeyRow.name == FIRST_START, ApiKeyRow.revoked_at.is_(None))
    session.execute(update(ApiKeyRow).where(*open_).values(revoked_at=datetime.now(UTC)))


def _valid(session: Session, name: str) -> list[ApiKeyRow]:
    now = datetime.now(UTC)
    rows = session.scalars(select(ApiKeyRow).where(ApiKeyRow.name == name).order_by(ApiKeyRow.id))
    return [row for row in rows if valid(row, now)]


def _scope(row: ApiKeyRow) -> Scope:
    scope: Scope = row.scope  # type: ignore[assignment]  # the table's check constraint allows no other
    return scope


def _add(
    session: Session, who: Principal, name: str, scope: Scope, expires_at: datetime | None
) -> tuple[ApiKeyRow, str]:
    key = tokens.new_key()
    row = ApiKeyRow(
        id=new_id(),
        name=name,
        scope=scope,
        prefix=key[:_SHOWN],
        hash=tokens.digest(key),
        created_by=who.name,
        created_at=datetime.now(UTC),
        expires_at=expires_at,
    )
    session.add(row)
    session.flush()
    return row, key
