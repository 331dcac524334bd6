"""Scores that were read lately: whoever drags a limit asks for the same ones many times a second."""

import threading
import time

from service.db.repository import scores
from service.db.repository.scores import Span
from service.db.session import Database
from service.recipes.whatif import Stored

_FEW = 2000
_KEPT_S = 15.0
_MOST = 500_000  # scores in memory, about 60 MB


class ScoreMemory:
    """Scores by span; fewer than 2000 are read anew each time, more of them after some seconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[tuple[Span, int], tuple[float, Stored]] = {}

    def of(self, database: Database, span: Span, limit: int, fresh_s: float = _KEPT_S) -> Stored:
        """The newest `limit` of a span; of many, those that came in the last `fresh_s` may be missing."""
        with self._lock:
            read_at, found = self._known.get((span, limit), (0.0, None))
        now = time.monotonic()
        if found is not None and now - read_at < fresh_s:
            return found
        with database.read() as session:
            found = scores.stored(session, span, limit)
        self._keep((span, limit), now, found)
        return found

    def _keep(self, key: tuple[Span, int], now: float, found: Stored) -> None:
        with self._lock:
            self._known.pop(key, None)
            if len(found) >= _FEW:
                self._known[key] = now, found
            while sum(len(stored) for _, stored in self._known.values()) > _MOST:
                del self._known[next(iter(self._known))]  # what was read longest ago
