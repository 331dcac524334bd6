"""The queue of a service that is one process: nothing to install, nothing to reach."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import count

from service.queue.base import PRIORITIES, Depth, Lease, LeaseLost, Priority

_DEAD_LETTERS = 1000


@dataclass
class _Job:
    id: str
    priority: Priority
    put_at: float
    attempts: int = 0
    lease: Lease | None = None
    until: float = 0.0


class MemoryQueue:
    """Jobs by id, in two lines; an empty one after a restart is filled from the database."""

    def __init__(self, lease_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._lease_s, self._clock = lease_s, clock
        self._jobs: dict[str, _Job] = {}
        self._lines: dict[Priority, deque[_Job]] = {priority: deque() for priority in PRIORITIES}
        self._dead: deque[tuple[str, str]] = deque(maxlen=_DEAD_LETTERS)
        self._tokens = count()
        self._arrived = asyncio.Event()
        self._woken = 0

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def put(self, identifier: str, priority: Priority = "camera") -> bool:
        if identifier in self._jobs:
            return False
        job = _Job(identifier, priority, self._clock())
        self._jobs[identifier] = job
        self._lines[priority].append(job)
        self._arrived.set()
        return True

    async def take(self, count: int, wait_s: float) -> list[Lease]:
        deadline, woken = self._clock() + wait_s, self._woken
        while True:
            self._reclaim()
            taken = [self._lend(job) for job in self._next(count)]
            left = deadline - self._clock()
            if taken or left <= 0 or woken != self._woken:
                return taken
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), min(left, self._until_reclaim()))
            except TimeoutError:
                continue

    def wake(self) -> None:
        self._woken += 1
        self._arrived.set()

    async def renew(self, lease: Lease) -> None:
        self._held(lease).until = self._clock() + self._lease_s

    async def done(self, lease: Lease) -> bool:
        if not self._is_ours(lease):
            return False
        del self._jobs[lease.id]
        return True

    async def release(self, lease: Lease) -> bool:
        if not self._is_ours(lease):
            return False
        job = self._jobs[lease.id]
        job.attempts -= 1
        self._give_back(job)
        return True

    async def bury(self, lease: Lease, reason: str) -> bool:
        if not await self.done(lease):
            return False
        self._dead.appendleft((lease.id, reason))
        return True

    async def depth(self) -> Depth:
        self._reclaim()
        waiting = [job for line in self._lines.values() for job in line]
        now = self._clock()
        oldest = min((job.put_at for job in waiting), default=now)
        return Depth(len(waiting), len(self._jobs) - len(waiting), now - oldest)

    async def dead(self, count: int = 100) -> Sequence[tuple[str, str]]:
        return list(self._dead)[:count]

    def _next(self, count: int) -> list[_Job]:
        found: list[_Job] = []
        for priority in PRIORITIES:
            line = self._lines[priority]
            while line and len(found) < count:
                found.append(line.popleft())
        return found

    def _lend(self, job: _Job) -> Lease:
        job.attempts += 1
        job.until = self._clock() + self._lease_s
        job.lease = Lease(job.id, job.priority, job.attempts, str(next(self._tokens)))
        return job.lease

    def _is_ours(self, lease: Lease) -> bool:
        job = self._jobs.get(lease.id)
        return job is not None and job.lease == lease

    def _held(self, lease: Lease) -> _Job:
        if not self._is_ours(lease):
            raise LeaseLost(lease.id)
        return self._jobs[lease.id]

    def _give_back(self, job: _Job) -> None:
        job.lease = None
        self._lines[job.priority].appendleft(job)
        self._arrived.set()

    def _reclaim(self) -> None:
        now = self._clock()
        overdue = [job for job in self._jobs.values() if job.lease is not None and job.until <= now]
        for job in sorted(overdue, key=lambda job: job.put_at, reverse=True):
            self._give_back(job)

    def _until_reclaim(self) -> float:
        soonest = min((job.until for job in self._jobs.values() if job.lease is not None), default=None)
        return 3600.0 if soonest is None else max(0.001, soonest - self._clock())


class MemoryBell:
    """For waiters in this process."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[str], None]] = []

    async def ring(self, identifiers: Collection[str]) -> None:
        for identifier in identifiers:
            for heard in self._listeners:
                heard(identifier)

    def listen(self, heard: Callable[[str], None]) -> None:
        self._listeners.append(heard)
