"""Who is behind a key or a session cookie: looked up in the database, remembered for a few seconds."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import cast

from service.access import tokens
from service.access.principal import Principal, Scope
from service.access.recent import Recent
from service.db.repository import keys, users
from service.db.session import Database

log = logging.getLogger(__name__)
_KEEP_S = 5.0
_NOTE_EVERY = timedelta(minutes=1)


@dataclass(frozen=True)
class Caller:
    """A principal, what its requests are counted under, and the session it came with."""

    principal: Principal
    counted_as: str
    expires_at: datetime | None = None
    session: str | None = field(default=None, repr=False)  # the cookie's token, never logged or stored

    @property
    def csrf(self) -> str | None:
        return None if self.session is None else tokens.csrf_token(self.session)


class Callers:
    """Finds callers; a revoked key or a closed session counts for at most five seconds elsewhere."""

    def __init__(self, database: Database, session_idle: timedelta) -> None:
        self._database = database
        self._session_idle = session_idle
        self._known: Recent[Caller] = Recent(_KEEP_S)
        self._noted: Recent[bool] = Recent(_NOTE_EVERY.total_seconds())
        self._notes: set[asyncio.Task[None]] = set()

    async def by_key(self, key: str) -> Caller | None:
        """The machine with this key, unless it is unknown, expired or revoked."""
        return await self._find(tokens.digest(key), self._load_key, key)

    async def by_session(self, token: str) -> Caller | None:
        """The person with this cookie, unless the session has ended or was idle for too long."""
        return await self._find(tokens.digest(token), self._load_session, token)

    def forget(self) -> None:
        """Look everything up anew: something has changed."""
        self._known.clear()

    async def close(self) -> None:
        await asyncio.gather(*self._notes)

    async def _find(
        self, digest: str, load: Callable[[str, str], Caller | None], secret: str
    ) -> Caller | None:
        found = self._known.get(digest)
        if found is None:
            found = await asyncio.to_thread(load, digest, secret)
            if found is None:  # not remembered: a key works at once when it is made
                return None
            self._known.put(digest, found)
        if found.expires_at is not None and found.expires_at <= datetime.now(UTC):
            return None
        if self._noted.get(digest) is None:
            self._noted.put(digest, True)
            note = asyncio.create_task(asyncio.to_thread(self._note, digest, found))
            self._notes.add(note)
            note.add_done_callback(self._notes.discard)
        return found

    def _load_key(self, digest: str, _key: str) -> Caller | None:
        with self._database.read() as session:
            row = keys.by_hash(session, digest)
        if row is None or not keys.valid(row, datetime.now(UTC)):
            return None
        principal = Principal(row.name, cast("Scope", row.scope), "key")
        return Caller(principal, f"key:{row.id}", row.expires_at)

    def _load_session(self, digest: str, token: str) -> Caller | None:
        with self._database.read() as session:
            found = users.find_session(session, digest)
        if found is None:
            return None
        row, user = found
        if user.disabled or datetime.now(UTC) - row.seen_at > self._session_idle:
            return None
        principal = Principal(user.name, cast("Scope", user.role), "user")
        return Caller(principal, f"user:{user.id}", row.expires_at, token)

    def _note(self, digest: str, caller: Caller) -> None:
        """Write down that it was used; a request is not held up or failed by that."""
        now = datetime.now(UTC)
        try:
            with self._database.write() as session:
                if caller.session is None:
                    keys.touch(session, digest, now, _NOTE_EVERY)
                else:
                    users.touch_session(session, digest, now, _NOTE_EVERY)
        except Exception:
            log.warning("the last use of a key or session was not noted", exc_info=True)
