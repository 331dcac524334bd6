"""Signing in: with a password, with a link that works once, or as the first admin with the printed token."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy.orm import Session

from service import logs
from service.access import passwords, tokens
from service.access.principal import SYSTEM, Principal
from service.db.repository import audit, keys, users
from service.db.session import Database
from service.db.tables import UserRow
from service.errors import InspectionError

_WRONG = "name or password is wrong, or there were too many wrong ones; wait some minutes before the next try"
_LINK_LASTS = timedelta(minutes=15)


@dataclass(frozen=True)
class SignedIn:
    """A session that has begun; the token goes into the cookie and nowhere else."""

    token: str
    name: str
    role: str
    expires_at: datetime


class SignIn:
    """All of it blocks - argon2id is slow on purpose - and belongs in a thread."""

    def __init__(self, database: Database, lasts: timedelta) -> None:
        self._database = database
        self._lasts = lasts
        self._untouched = True
        passwords.of_nobody()

    def with_password(self, name: str, password: str) -> SignedIn:
        """401 that looks and takes the same for an unknown name, a wrong password and a locked account."""
        with self._database.read() as session:
            row = users.by_name(session, name)
        right = passwords.matches(None if row is None else row.password_hash, password)
        stronger = passwords.hashed(password) if right and _outdated(row) else None
        with self._database.write() as session:
            user = users.by_name(session, name, lock=True)
            now = datetime.now(UTC)
            locked = user is not None and users.locked(user, now)
            if user is not None and right and not locked and not user.disabled:
                users.note_success(user, now)
                user.password_hash = stronger or user.password_hash
                return self._open(session, user)
            if user is not None and not locked:
                users.note_failure(user, now)
            # A name that nobody has may be a password in the wrong field: it is not written down.
            target = "user/?" if user is None else f"user/{user.name}"
            audit.record(session, SYSTEM, "session.refused", target)
        raise InspectionError(401, "wrong-password", _WRONG, headers={"WWW-Authenticate": "Form"})

    def with_link(self, token: str) -> SignedIn:
        """401 unless the link is less than 15 minutes old and was not used."""
        with self._database.write() as session:
            user = users.take_session(session, tokens.link_digest(token))
            if user is not None and not user.disabled:
                users.note_success(user, datetime.now(UTC))
                return self._open(session, user)
        detail = "the link was used before or is older than 15 minutes; make another"
        raise InspectionError(401, "wrong-link", detail, headers={"WWW-Authenticate": "Form"})

    def first_admin(self, key: str, name: str, password: str) -> SignedIn:
        """Make the first user, an admin, for whoever has the token printed at the first start."""
        passwords.check_new(password)
        password_hash = passwords.hashed(password)
        with self._database.write() as session:
            row = keys.by_hash(session, tokens.digest(key))
            if row is not None and row.name == keys.FIRST_START and keys.valid(row, datetime.now(UTC)):
                who = Principal(row.name, "admin", "key")
                return self._open(session, users.add(session, who, name, "admin", password_hash))
        detail = "the token is not the one printed at the last start, or there is an admin already"
        raise InspectionError(401, "wrong-token", detail, headers={"WWW-Authenticate": "Form"})

    def out(self, token: str, who: Principal) -> None:
        """End the session."""
        with self._database.write() as session:
            if users.take_session(session, tokens.digest(token)) is not None:
                audit.record(session, who, "session.close", f"user/{who.name}")

    def untouched(self) -> bool:
        """Whether the first admin is still to come."""
        if self._untouched:
            with self._database.read() as session:
                self._untouched = keys.untouched(session)
        return self._untouched

    def _open(self, session: Session, user: UserRow) -> SignedIn:
        token = tokens.new_session()
        address = logs.address.get() or None
        row = users.open_session(session, user, tokens.digest(token), self._lasts, address)
        audit.record(session, Principal(user.name, "admin", "user"), "session.open", f"user/{user.name}")
        return SignedIn(token, user.name, user.role, row.expires_at)


def link(session: Session, who: Principal, name: str) -> str:
    """A token for /signin?link=... that signs a person in once."""
    user = users.get(session, name)
    token = tokens.new_session()
    users.open_session(session, user, tokens.link_digest(token), _LINK_LASTS, None)
    audit.record(session, who, "users.link", f"user/{user.name}")
    return token


def _outdated(row: UserRow | None) -> bool:
    return row is not None and row.password_hash is not None and passwords.outdated(row.password_hash)
