"""Static micro-batches: images of one profile that start together and end together.

Kept to compare with: simple, but an image that arrives a moment late waits for the whole batch before it.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import numpy as np

from models.engine import Engine, RawMap
from models.samplers import Cancelled
from service.batching.base import Batcher
from service.batching.job import Ticket
from service.batching.lanes import Lanes
from service.batching.stepwise import run_together
from service.metrics import Metrics

log = logging.getLogger(__name__)
_WARM_UP_S = 5.0


class StaticBatcher(Batcher):
    """Micro-batches of at most `batch_size` images of one profile, formed within `batch_delay_s`."""

    def __init__(
        self,
        engine: Engine,
        metrics: Metrics,
        *,
        batch_size: int,
        batch_delay_s: float,
    ) -> None:
        super().__init__()
        self._engine = engine
        self._metrics = metrics
        self._batch_size = batch_size
        self._batch_delay_s = batch_delay_s
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._abort = threading.Event()
        self._lanes = Lanes()
        self._wake = asyncio.Event()
        self._loop_task = asyncio.create_task(self._run(), name="batcher")

    @property
    def healthy(self) -> bool:
        """Whether batches are being formed."""
        return not self._loop_task.done() and not self._closing

    @property
    def _ended(self) -> bool:
        return self._loop_task.done()

    def _enter(self, ticket: Ticket) -> None:
        self._lanes.add(ticket)
        self._wake.set()

    def _leave(self, ticket: Ticket) -> None:
        self._lanes.discard(ticket)

    async def warm_up(self, profile: str) -> None:
        """Run one image and one full batch, so that no request pays for allocation and kernel choice.

        A long chain repeats one and the same network call, so it is left after a few seconds.
        """
        spec = self._engine.manifest.preprocess
        images = np.zeros((self._batch_size, spec.channels, spec.height, spec.width), dtype=np.float32)
        for batch in (images[:1], images):
            seeds = list(range(len(batch)))
            call = partial(self._engine.run, batch, seeds, profile, _over(time.monotonic() + _WARM_UP_S))
            with suppress(Cancelled):
                await asyncio.get_running_loop().run_in_executor(self._thread, call)

    async def close(self, grace_s: float = 0.0) -> None:
        """Finish what is queued, but stop between two denoising steps once `grace_s` is over."""
        self._closing = True
        self._wake.set()
        done, _ = await asyncio.wait([self._loop_task], timeout=grace_s)
        if not done:
            self._abort.set()
            await self._loop_task
        self._thread.shutdown(wait=True)

    async def _run(self) -> None:
        while batch := await self._next_batch():
            started = time.monotonic()
            for ticket in batch:
                ticket.started_at = started
            outcomes = await self._run_batch(batch)
            finished = time.monotonic()
            for ticket, outcome in zip(batch, outcomes, strict=True):
                if isinstance(outcome, Exception):
                    ticket.fail(outcome)
                else:
                    ticket.answer(outcome, finished)

    async def _next_batch(self) -> list[Ticket]:
        """The next image and those of its profile that can share its call; empty when closed and drained."""
        while (first := self._lanes.peek()) is None:
            if self._closing:
                return []
            await self._woken()
        deadline = first.queued_at + self._batch_delay_s
        while (
            sum(ticket.job.profile == first.job.profile for ticket in self._lanes) < self._batch_size
            and (left_s := deadline - time.monotonic()) > 0
            and not self._closing
        ):
            try:
                await asyncio.wait_for(self._woken(), left_s)
            except TimeoutError:
                break
        return self._lanes.take_alike(self._batch_size) or await self._next_batch()

    async def _woken(self) -> None:
        self._wake.clear()
        await self._wake.wait()

    async def _run_batch(self, batch: Sequence[Ticket]) -> list[RawMap | Exception]:
        """One outcome per ticket; a failing batch runs again one by one: a poisonous image fails alone."""
        if self._abort.is_set():
            return [Cancelled("the service is stopping") for _ in batch]
        self._metrics.batch_size.observe(len(batch))
        loop = asyncio.get_running_loop()
        try:
            return list(await loop.run_in_executor(self._thread, self._call, batch))
        except Exception as error:
            if len(batch) == 1 or self._abort.is_set() or all(ticket.gone for ticket in batch):
                return [error for _ in batch]
            log.warning("a batch of %d failed (%r); running its images one by one", len(batch), error)
        outcomes: list[RawMap | Exception] = []
        for ticket in batch:
            try:
                outcomes.extend(await loop.run_in_executor(self._thread, self._call, [ticket]))
            except Exception as error:
                outcomes.append(error)
        return outcomes

    def _call(self, batch: Sequence[Ticket]) -> list[RawMap]:
        def unwanted() -> bool:
            return self._abort.is_set() or all(ticket.gone for ticket in batch)

        return run_together(self._engine, [ticket.job for ticket in batch], unwanted)


def _over(deadline: float) -> Callable[[], bool]:
    return lambda: time.monotonic() > deadline
