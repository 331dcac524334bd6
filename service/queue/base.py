"""What a queue of inspections promises, whatever it is made of.

A queue carries ids, never images or results. Whoever takes a job holds a lease on it: unless it is renewed
in time, another worker gets the job, so nothing is lost with a worker, and work may be done twice but is
stored once (the database decides). What the queue itself loses - a flushed Redis - the sweeper puts again.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Priority = Literal["camera", "backfill"]
PRIORITIES: tuple[Priority, ...] = ("camera", "backfill")
"""Most urgent first."""


class QueueUnavailable(RuntimeError):
    """The queue cannot be reached just now; nothing is lost, the sweeper catches up."""


class LeaseLost(RuntimeError):
    """The lease ran out and another worker has the job."""


@dataclass(frozen=True)
class Lease:
    """A job that is ours until the lease runs out."""

    id: str  # of the inspection
    priority: Priority
    attempt: int  # 1 the first time somebody takes it
    token: str  # names this job inside the queue


@dataclass(frozen=True)
class Depth:
    """How much there is to do."""

    waiting: int
    leased: int
    oldest_s: float  # age of the job that has waited longest, 0 when none waits


class Queue(Protocol):
    """Every method may raise QueueUnavailable."""

    async def open(self) -> None:
        """Make ready; may be called again."""
        ...

    async def close(self) -> None: ...

    async def put(self, identifier: str, priority: Priority = "camera") -> bool:
        """Enqueue; False if the queue holds this id already, waiting or leased."""
        ...

    async def take(self, count: int, wait_s: float) -> list[Lease]:
        """Up to `count` jobs, the most urgent and oldest first; waits up to `wait_s` for the first one.

        Jobs whose lease ran out come again, with a higher `attempt`.
        """
        ...

    def wake(self) -> None:
        """Let a waiting `take` of this process answer at once, where that can be done."""
        ...

    async def renew(self, lease: Lease) -> None:
        """Start the lease anew; LeaseLost when it is no longer ours."""
        ...

    async def done(self, lease: Lease) -> bool:
        """Forget a finished job; False when the lease was lost before, and the job is not ours to forget."""
        ...

    async def release(self, lease: Lease) -> bool:
        """Give a job back for others to take at once; it keeps its place and this attempt does not count."""
        ...

    async def bury(self, lease: Lease, reason: str) -> bool:
        """Done with a job that nobody should try again; it is kept among the dead letters."""
        ...

    async def depth(self) -> Depth: ...

    async def dead(self, count: int = 100) -> Sequence[tuple[str, str]]:
        """The newest dead letters as (id, reason)."""
        ...


class Bell(Protocol):
    """Tells whoever waits for an inspection that it has ended; may be missed, so waiters also look."""

    async def ring(self, identifiers: Collection[str]) -> None: ...

    def listen(self, heard: Callable[[str], None]) -> None:
        """Call `heard` with every id that is rung, in this process or another."""
        ...
