"""The face of a batcher, and what every batcher does alike: deadlines and cancellation.

A batcher knows nothing of rows and files: it is given network inputs and answers with RawMaps. What it
holds is lost with the process, which is why the database, not this queue, is the truth. How much may wait
is for `service.admission` to say.
"""

import asyncio
import time
from abc import ABC, abstractmethod
from typing import Protocol

from models.samplers import Cancelled
from service.batching.job import Expired, Finished, Job, Ticket


class Batching(Protocol):
    """Runs jobs on the engine, several at once; at most one answer each, and never another's."""

    @property
    def healthy(self) -> bool:
        """Whether jobs are being run and new ones taken."""
        ...

    async def submit(self, job: Job) -> Finished:
        """Wait for the engine's answer; raises what the engine raised for this image alone.

        Expired when the job's deadline passes first, Cancelled when the batcher ends before the answer is
        there. A job whose submitter is cancelled leaves the engine before its next network call.
        """
        ...

    async def warm_up(self, profile: str) -> None:
        """Run one image and a full batch, so that no request pays for allocation and kernel choice."""
        ...

    async def close(self, grace_s: float = 0.0) -> None:
        """Finish what is queued; once `grace_s` is over, stop before the next network call."""
        ...


class Batcher(ABC):
    """What the batchers share: a submitted job's deadline and end."""

    def __init__(self) -> None:
        self._closing = False

    @property
    @abstractmethod
    def healthy(self) -> bool:
        """Whether jobs are being run and new ones taken."""

    @property
    @abstractmethod
    def _ended(self) -> bool:
        """Whether nobody would ever answer."""

    @abstractmethod
    def _enter(self, ticket: Ticket) -> None:
        """Queue a ticket."""

    @abstractmethod
    def _leave(self, ticket: Ticket) -> None:
        """Forget a ticket wherever it is; it has been answered, or nobody waits for it any more."""

    async def submit(self, job: Job) -> Finished:
        """Wait for the engine's answer; see `Batching`."""
        if self._ended:
            raise Cancelled("the service is stopping")
        loop = asyncio.get_running_loop()
        ticket, timer = Ticket(job, loop.create_future()), None
        if job.deadline is not None:
            left_s = job.deadline - time.monotonic()
            if left_s <= 0:
                raise Expired(f"the deadline of {job.id} had passed before it was queued")
            timer = loop.call_later(left_s, ticket.expiry())
        self._enter(ticket)
        try:
            return await ticket.future
        finally:
            ticket.gone = True
            self._leave(ticket)
            if timer is not None:
                timer.cancel()
