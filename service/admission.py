"""Who may still send an image: bounds by count and by predicted wait, and a share of the queue per key.

Places are counted here and compared with the database once a second: it knows of what other processes
accepted and finished. The service rate is measured from the ends that are heard of, of all workers.
"""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial

from sqlalchemy.exc import SQLAlchemyError

from service.access.principal import Principal
from service.errors import InspectionError
from service.ids import id_time
from service.ledger import Ledger
from service.metrics import Metrics
from service.queue.base import PRIORITIES, Bell, Priority
from service.settings import Settings

log = logging.getLogger(__name__)
_LOOK_S = 1.0
_SAMPLES = 64
_ENOUGH = 16  # samples before images are refused by predicted wait
_FIRST_GUESS_S = 1.0


class ServiceRate:
    """Seconds per image while there is something to do, over the last ends."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._spans: deque[float] = deque(maxlen=_SAMPLES)
        self._busy_since: float | None = None

    def busy(self) -> None:
        """There is work from now on."""
        if self._busy_since is None:
            self._busy_since = self._clock()

    def ended(self, left: int) -> None:
        """One more has ended, and `left` are still to do."""
        now = self._clock()
        if self._busy_since is not None:
            self._spans.append(now - self._busy_since)
        self._busy_since = now if left else None

    @property
    def measured(self) -> bool:
        return len(self._spans) >= _ENOUGH

    @property
    def image_s(self) -> float:
        return sum(self._spans) / len(self._spans) if self._spans else _FIRST_GUESS_S


class Admission:
    """Hands out places: before a body is read, until the inspection has ended."""

    def __init__(self, ledger: Ledger, bell: Bell, settings: Settings, metrics: Metrics) -> None:
        self._ledger, self._settings = ledger, settings
        self._held: dict[str, tuple[str, float]] = {}  # id -> (key, since) of what was accepted here
        self._uploads: deque[str] = deque()  # keys of requests whose image is not stored yet
        self._elsewhere = 0
        self._rate = ServiceRate()
        self._task: asyncio.Task[None] | None = None
        self.closed = False
        bell.listen(self._heard)
        self._oldest: dict[Priority, datetime] = {}  # when it was accepted, as of the last look
        metrics.queue_depth.set_function(lambda: self.depth)
        for priority in PRIORITIES:
            metrics.queue_oldest.labels(priority).set_function(partial(self._oldest_s, priority))

    def start(self) -> None:
        self._task = asyncio.create_task(self._look(), name="admission")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @property
    def depth(self) -> int:
        """Images waiting, running, or being received."""
        return len(self._held) + len(self._uploads) + self._elsewhere

    def expected_wait_s(self) -> float:
        """How long what is accepted now will wait for its result."""
        return self.depth * self._rate.image_s

    def check(self, who: Principal) -> None:
        """InspectionError 503 at the bounds of the service, 429 at the share of one key."""
        if self.closed:
            raise InspectionError(503, "shutting-down", "the service is stopping; try again", retry_after_s=5)
        depth, limits = self.depth, self._settings
        wait_s = self.expected_wait_s()
        if depth >= limits.queue_size:
            detail = f"{depth} images are waiting already; slow down and send the image again"
            raise InspectionError(503, "queue-full", detail, retry_after_s=wait_s)
        if self._rate.measured and wait_s > limits.max_queue_s:
            detail = f"the result would take {wait_s:.0f} s; slow down and send the image again"
            raise InspectionError(503, "queue-too-slow", detail, retry_after_s=wait_s - limits.max_queue_s)
        if who.kind == "key":
            share = max(1, math.ceil(limits.queue_share * limits.queue_size))
            own = self._uploads.count(who.name) + sum(key == who.name for key, _ in self._held.values())
            if own >= share:
                detail = f"{own} images of key {who.name!r} are waiting, its share of the queue; slow down"
                raise InspectionError(429, "key-share", detail, retry_after_s=own * self._rate.image_s / 2)

    @contextmanager
    def place(self, who: Principal) -> Iterator["Place"]:
        """A place for one request, given back at its end unless it was `keep`t for an inspection."""
        self.check(who)
        self._uploads.append(who.name)
        try:
            yield Place(self, who.name)
        finally:
            self._uploads.remove(who.name)

    def hold(self, identifier: str, key: str) -> None:
        """Count an accepted inspection until it ends."""
        self._rate.busy()
        self._held[identifier] = (key, time.monotonic())

    def _heard(self, identifier: str) -> None:
        if self._held.pop(identifier, None) is None and self._elsewhere:
            self._elsewhere -= 1
        self._rate.ended(len(self._held) + self._elsewhere)

    def _oldest_s(self, priority: Priority) -> float:
        since = self._oldest.get(priority)
        return 0.0 if since is None else max(0.0, (datetime.now(UTC) - since).total_seconds())

    async def _look(self) -> None:
        while True:
            asked = time.monotonic()
            try:
                pending = await asyncio.to_thread(self._ledger.pending, self._settings.queue_size + 1)
            except SQLAlchemyError as error:
                log.warning("the backlog cannot be read for now: %s", error)
            else:
                self._compare({identifier for identifier, _ in pending}, asked)
                # Newest first, so that the oldest of each priority stands.
                self._oldest = {priority: id_time(identifier) for identifier, priority in reversed(pending)}
            await asyncio.sleep(_LOOK_S)

    def _compare(self, pending: set[str], asked: float) -> None:
        """What the bell did not say has ended, and what others have accepted."""
        if len(pending) <= self._settings.queue_size:  # all of them
            for identifier in [
                i for i, (_, since) in self._held.items() if since < asked and i not in pending
            ]:
                self._heard(identifier)
        self._elsewhere = len(pending - self._held.keys())
        if self.depth > len(self._uploads):
            self._rate.busy()


class Place:
    """One request's place."""

    def __init__(self, admission: Admission, key: str) -> None:
        self._admission, self._key = admission, key

    def keep(self, identifier: str) -> None:
        """The inspection has it from now on."""
        self._admission.hold(identifier, self._key)
