"""The face of a batcher, and what every batcher does alike: a bound, deadlines, cancellation.

A batcher knows nothing of rows and files: it is given network inputs and answers with RawMaps. What it
holds is lost with the process, which is why the database, not this queue, is the truth.
"""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from models.samplers import Cancelled
from service.batching.job import Expired, Finished, Job, Ticket
from service.errors import InspectionError

OnStart = Callable[[Sequence[str]], None]
"""Called on the event loop with the ids of jobs that the engine has taken up."""
_RATE_MEMORY = 0.2  # weight of the newest measurement in the seconds per image
_GUESSED_IMAGE_S = 1.0  # until something was measured


class Batching(Protocol):
    """Runs jobs on the engine, several at once; at most one answer each, and never another's."""

    @property
    def healthy(self) -> bool:
        """Whether jobs are being run and new ones taken."""
        ...

    def check_room(self) -> None:
        """Raise 503 with Retry-After when the queue is at its bound."""
        ...

    def place(self, *, force: bool = False) -> AbstractContextManager[None]:
        """Hold one place in the queue; InspectionError 503 when there is none, unless `force`."""
        ...

    def expected_wait_s(self) -> float:
        """How long what is accepted now will keep the engine busy, from the measured service rate."""
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
    """What the batchers share: places, the measured rate, and a submitted job's deadline and end."""

    def __init__(self, queue_size: int) -> None:
        self._queue_size = queue_size
        self._closing = False
        self._reserved = 0
        self._image_s: float | None = None

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

    def check_room(self) -> None:
        """Raise 503 with Retry-After when the queue is at its bound."""
        if not self.healthy:
            raise InspectionError(503, "shutting-down", "the service is stopping; try again", retry_after_s=5)
        if self._reserved >= self._queue_size:
            detail = f"{self._reserved} images are waiting already; slow down and send the image again"
            raise InspectionError(503, "queue-full", detail, retry_after_s=self.expected_wait_s())

    def expected_wait_s(self) -> float:
        """How long what is accepted now will keep the engine busy, from the measured service rate."""
        return self._reserved * (self._image_s if self._image_s is not None else _GUESSED_IMAGE_S)

    @contextmanager
    def place(self, *, force: bool = False) -> Iterator[None]:
        """Hold one place in the queue; InspectionError 503 when there is none, unless `force`."""
        if not force:
            self.check_room()
        self._reserved += 1
        try:
            yield
        finally:
            self._reserved -= 1

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

    def _learn_rate(self, image_s: float) -> None:
        old = self._image_s if self._image_s is not None else image_s
        self._image_s = old + _RATE_MEMORY * (image_s - old)
