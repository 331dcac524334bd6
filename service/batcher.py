"""Bounded queue -> micro-batches -> the one engine thread.

The batcher knows nothing of rows and files: it is given a network input and answers with a RawMap.
What it holds is lost with the process, which is why the database, not this queue, is the truth.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from models.engine import Engine, RawMap
from models.samplers import Cancelled
from service.errors import InspectionError
from service.metrics import Metrics

log = logging.getLogger(__name__)
_WARM_UP_S = 5.0
_RATE_MEMORY = 0.2  # weight of the newest batch in the measured seconds per image


@dataclass(frozen=True)
class Finished:
    """An image's RawMap with the time it waited for its batch and the time of the batch itself."""

    result: RawMap
    queue_s: float
    inference_s: float


@dataclass(eq=False)  # a job is itself, whatever it holds
class _Job:
    id: str
    image: NDArray[np.float32]  # [C, H, W]
    seed: int
    profile: str
    future: "asyncio.Future[Finished]"
    queued_at: float = field(default_factory=time.monotonic)


class Batcher:
    """Micro-batches of at most `batch_size` images of one profile, formed within `batch_delay_s`."""

    def __init__(
        self,
        engine: Engine,
        metrics: Metrics,
        *,
        queue_size: int,
        batch_size: int,
        batch_delay_s: float,
        on_start: Callable[[Sequence[str]], None] = lambda ids: None,
    ) -> None:
        self._engine = engine
        self._metrics = metrics
        self._queue_size = queue_size
        self._batch_size = batch_size
        self._batch_delay_s = batch_delay_s
        self._on_start = on_start
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._abort = threading.Event()
        self._waiting: deque[_Job] = deque()
        self._wake = asyncio.Event()
        self._closing = False
        self._reserved = 0
        self._image_s: float | None = None
        self._loop_task = asyncio.create_task(self._run(), name="batcher")
        metrics.queue_depth.set_function(lambda: self._reserved)
        metrics.queue_oldest.set_function(self._oldest_s)

    @property
    def healthy(self) -> bool:
        """Whether batches are being formed."""
        return not self._loop_task.done() and not self._closing

    def check_room(self) -> None:
        """Raise 503 with Retry-After when the queue is at its bound."""
        if not self.healthy:
            raise InspectionError(503, "shutting-down", "the service is stopping; try again", retry_after_s=5)
        if self._reserved >= self._queue_size:
            detail = f"{self._reserved} images are waiting already; slow down and send the image again"
            raise InspectionError(503, "queue-full", detail, retry_after_s=self.expected_wait_s())

    def expected_wait_s(self) -> float:
        """How long what is accepted now will keep the engine busy, from the measured service rate."""
        return self._reserved * (self._image_s if self._image_s is not None else 1.0)

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

    async def submit(self, identifier: str, image: NDArray[np.float32], seed: int, profile: str) -> Finished:
        """Wait for the engine's answer; raises what the engine raised for this image alone.

        Cancelled when batches are no longer formed: nobody would ever answer.
        """
        if self._loop_task.done():
            raise Cancelled("the service is stopping")
        job = _Job(identifier, image, seed, profile, asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        self._wake.set()
        try:
            return await job.future
        finally:
            if job in self._waiting:  # the caller was cancelled
                self._waiting.remove(job)

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

    def _oldest_s(self) -> float:
        return time.monotonic() - self._waiting[0].queued_at if self._waiting else 0.0

    async def _run(self) -> None:
        while batch := await self._next_batch():
            started = time.monotonic()
            outcomes = await self._run_batch(batch)
            elapsed_s = time.monotonic() - started
            self._learn_rate(elapsed_s / len(batch))
            for job, outcome in zip(batch, outcomes, strict=True):
                if job.future.done():
                    continue
                if isinstance(outcome, Exception):
                    job.future.set_exception(outcome)
                else:
                    job.future.set_result(Finished(outcome, started - job.queued_at, elapsed_s))

    async def _next_batch(self) -> list[_Job]:
        """The oldest job and those of its profile that can share its call; empty when closed and drained."""
        while not self._waiting:
            if self._closing:
                return []
            await self._woken()
        first = self._waiting[0]
        deadline = first.queued_at + self._batch_delay_s
        while (
            sum(job.profile == first.profile for job in self._waiting) < self._batch_size
            and (left_s := deadline - time.monotonic()) > 0
            and not self._closing
        ):
            try:
                await asyncio.wait_for(self._woken(), left_s)
            except TimeoutError:
                break
        batch = [job for job in self._waiting if job.profile == first.profile][: self._batch_size]
        for job in batch:
            self._waiting.remove(job)
        return batch or await self._next_batch()

    async def _woken(self) -> None:
        self._wake.clear()
        await self._wake.wait()

    async def _run_batch(self, batch: Sequence[_Job]) -> list[RawMap | Exception]:
        """One outcome per job. A failing batch is run again one by one: the poisonous image fails alone."""
        if self._abort.is_set():
            return [Cancelled("the service is stopping") for _ in batch]
        self._on_start([job.id for job in batch])
        self._metrics.batch_size.observe(len(batch))
        loop = asyncio.get_running_loop()
        try:
            return list(await loop.run_in_executor(self._thread, self._call, batch))
        except Exception as error:
            if len(batch) == 1 or self._abort.is_set():
                return [error for _ in batch]
            log.warning("a batch of %d failed (%r); running its images one by one", len(batch), error)
        outcomes: list[RawMap | Exception] = []
        for job in batch:
            try:
                outcomes.extend(await loop.run_in_executor(self._thread, self._call, [job]))
            except Exception as error:
                outcomes.append(error)
        return outcomes

    def _call(self, batch: Sequence[_Job]) -> list[RawMap]:
        images = np.stack([job.image for job in batch])
        seeds = [job.seed for job in batch]
        results = self._engine.run(images, seeds, batch[0].profile, self._abort.is_set)
        if len(results) != len(batch):
            raise RuntimeError(f"the engine answered {len(results)} of {len(batch)} images")
        return results

    def _learn_rate(self, image_s: float) -> None:
        old = self._image_s if self._image_s is not None else image_s
        self._image_s = old + _RATE_MEMORY * (image_s - old)


def _over(deadline: float) -> Callable[[], bool]:
    return lambda: time.monotonic() > deadline
