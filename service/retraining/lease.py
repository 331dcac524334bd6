"""Of N machines that want to retrain a recipe, one does."""

import hashlib
import logging
import secrets
import socket
import threading
from types import TracebackType
from typing import Self

from sqlalchemy.exc import SQLAlchemyError

from service.db.repository import leases
from service.db.session import Database

log = logging.getLogger(__name__)
LEASE_S = 120.0


def lease_name(recipe: str) -> str:
    return "retrain-" + hashlib.sha256(recipe.encode()).hexdigest()[:32]


class Held:
    """A lease kept alive by a thread. `taken` says whether we have it; `lost` is set when we no longer do."""

    def __init__(self, database: Database, recipe: str, seconds: float = LEASE_S) -> None:
        self._database, self._seconds = database, seconds
        self._name = lease_name(recipe)
        self._holder = f"{socket.gethostname()[:96]}-{secrets.token_hex(6)}"
        self._over = threading.Event()
        self.lost = threading.Event()
        self.taken = False

    def __enter__(self) -> Self:
        self.taken = self._acquire()
        if self.taken:
            self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.taken:
            return
        self._over.set()
        self._thread.join()
        with self._database.write() as session:
            leases.release(session, self._name, self._holder)

    def _acquire(self) -> bool:
        with self._database.write() as session:
            return leases.acquire(session, self._name, self._holder, self._seconds)

    def _keep(self) -> None:
        left_s = self._seconds
        pause_s = self._seconds / 4
        while not self._over.wait(pause_s):
            try:
                if not self._acquire():
                    self.lost.set()
                    return
                left_s = self._seconds
            except SQLAlchemyError as error:
                left_s -= pause_s
                log.warning("the lease cannot be renewed for now: %s", error)
                if left_s <= 0:
                    self.lost.set()
                    return
