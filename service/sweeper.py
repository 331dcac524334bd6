"""Makes good what queues and clients forget: lost jobs are queued again, overdue ones expire.

Every process expires (the first end stands, so they cannot disagree); one at a time looks for lost jobs.
"""

import asyncio
import logging
import secrets
from contextlib import suppress

from sqlalchemy.exc import SQLAlchemyError

from service import tasks
from service.ending import Ending, NotStored
from service.ledger import Ledger
from service.queue.base import Queue, QueueUnavailable

log = logging.getLogger(__name__)
LEASE = "sweeper"
_EXPIRE_S = 0.3
_MOST = 10_000  # jobs looked at in one sweep, oldest first


class Sweeper:
    """The two loops; `sweep` at the start takes up what the last process left."""

    def __init__(self, queue: Queue, ledger: Ledger, ending: Ending, every_s: float) -> None:
        self._queue, self._ledger, self._ending, self._every_s = queue, ledger, ending, every_s
        self._name = f"sweeper-{secrets.token_hex(6)}"
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(run(), name=run.__name__) for run in (self._sweeping, self._expiring)
        ]

    async def close(self) -> None:
        await tasks.end(*self._tasks)
        with suppress(SQLAlchemyError):
            await asyncio.to_thread(self._ledger.end_lease, LEASE, self._name)

    async def sweep(self) -> int:
        """Queue what is unfinished and not in the queue; how many there were."""
        found = await asyncio.to_thread(self._ledger.pending, _MOST)
        # The queue knows most of them; it answers so, and nothing happens.
        count = sum([await self._queue.put(identifier, priority) for identifier, priority in found])
        if count:
            log.info("queued %d unfinished inspections again", count)
        return count

    async def _sweeping(self) -> None:
        while True:
            try:
                # Longer than the pause: the holder keeps it, and its successor waits one pause at most.
                if await asyncio.to_thread(self._ledger.lease, LEASE, self._name, 2 * self._every_s):
                    await self.sweep()
            except (QueueUnavailable, SQLAlchemyError) as error:
                log.warning("lost jobs cannot be looked for now: %s", error)
            except Exception:
                log.exception("a sweep failed")
            await asyncio.sleep(self._every_s)

    async def _expiring(self) -> None:
        while True:
            await asyncio.sleep(_EXPIRE_S)
            try:
                if count := await self._ending.expire():
                    log.info("%d inspections expired", count)
            except (SQLAlchemyError, NotStored) as error:
                log.warning("deadlines cannot be looked at for now: %s", error)
            except Exception:
                log.exception("deadlines could not be looked at")
