"""Who goes first: images that somebody waits for, and shadows only while this process has none in hand."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from models.samplers import Cancelled

_QUIET_S = 0.05
"""A worker that has ended what it had takes so long, or less, to begin what waits."""


class Traffic:
    """Counts the live images of this process; any thread may ask."""

    def __init__(self) -> None:
        self._live, self._ended_at = 0, 0.0
        self._changed = threading.Condition()

    @contextmanager
    def live(self) -> Iterator[None]:
        """One image more in hand."""
        with self._changed:
            self._live += 1
        try:
            yield
        finally:
            with self._changed:
                self._live, self._ended_at = self._live - 1, time.monotonic()
                self._changed.notify_all()

    def wait(self, should_stop: Callable[[], bool]) -> None:
        """Block until nothing has been in hand for a moment; Cancelled once `should_stop`, see `wake`."""
        with self._changed:
            while not should_stop():
                quiet_s = time.monotonic() - self._ended_at
                if not self._live and quiet_s >= _QUIET_S:
                    return
                self._changed.wait(None if self._live else _QUIET_S - quiet_s)
        raise Cancelled("the shadow has ended")

    def wake(self) -> None:
        """Let those that wait look again whether they should stop."""
        with self._changed:
            self._changed.notify_all()
