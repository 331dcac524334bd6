"""The worker: takes leases, runs what they stand for, stores the end, and only then acknowledges.

    lease -> attempt counted (committed) -> runner -> end of the row (committed, with its messages)
          -> acknowledged

The database decides what is to be done and whose end counts: a job that ended elsewhere, or that another
worker has begun, is dropped quietly.
"""

import asyncio
import logging
import os
import secrets
import socket
import time
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from models.samplers import Cancelled
from service import logs, tasks
from service.attempt import Attempt, blameless, told
from service.batching import Expired
from service.conclude import expired, failed, failure, is_final
from service.db.tables import InspectionRow
from service.ending import Ending
from service.errors import wants_storage
from service.ledger import Ledger, NotBegun
from service.metrics import Metrics
from service.queue.base import Bell, Lease, LeaseLost, Queue, QueueUnavailable
from service.runner import Runner
from service.settings import Settings
from service.shadow.scorer import Scorer
from service.tracing import span

log = logging.getLogger(__name__)
_TAKE_S = 1.0
_PAUSE_S = 0.5
_LOOK_S = 1.0


class Worker:
    """Runs inspections in this process, two batches at a time: one in the engine, the next one forming."""

    def __init__(
        self,
        queue: Queue,
        bell: Bell,
        ledger: Ledger,
        runner: Runner,
        ending: Ending,
        scorer: Scorer,
        metrics: Metrics,
        settings: Settings,
    ) -> None:
        self._queue, self._ledger, self._runner, self._ending = queue, ledger, runner, ending
        self._scorer, self._metrics = scorer, metrics
        self._most = 2 * settings.batch_size
        self._max_attempts = settings.max_attempts
        self._beat_s = settings.lease_s / 3
        self.name = f"{socket.gethostname()[:96]}-{os.getpid()}-{secrets.token_hex(3)}"
        self._jobs: dict[str, Attempt] = {}
        self._room = asyncio.Event()
        self._stopping = self._draining = False
        self._loop: asyncio.Task[None] | None = None
        self._keepers: list[asyncio.Task[None]] = []
        bell.listen(self._heard)
        metrics.running.set_function(lambda: len(self._jobs))

    def start(self) -> None:
        self._loop = asyncio.create_task(self._take(), name="worker")
        self._keepers = [asyncio.create_task(keep()) for keep in (self._beat, self._look)]

    @property
    def healthy(self) -> bool:
        """Whether jobs are taken."""
        running = self._loop is not None and not self._loop.done()
        return running and not self._draining and not self._stopping and self._runner.engines.healthy

    async def stop(self, deadline: float, *, drain: bool) -> None:
        """Finish what runs, and with `drain` what waits, until `deadline` (monotonic).

        What is left then ends with the engines: close them next, and await `end`.
        """
        self._draining, self._stopping = drain, not drain
        self._room.set()
        self._queue.wake()
        if self._loop is not None:
            await asyncio.wait([self._loop], timeout=max(0.0, deadline - time.monotonic()))
        self._stopping = True
        self._room.set()
        running = [job.task for job in self._jobs.values()]
        if running:
            log.info("finishing %d inspections", len(running))
            await asyncio.wait(running, timeout=max(0.0, deadline - time.monotonic()))

    async def end(self) -> None:
        """Wait until every job has noticed that the engines are closed, and went back."""
        if self._loop is not None:
            await asyncio.gather(self._loop, return_exceptions=True)
        await asyncio.gather(*(job.task for job in self._jobs.values()), return_exceptions=True)
        await tasks.end(*self._keepers)

    # --- taking ---

    async def _take(self) -> None:
        while not self._stopping:
            self._room.clear()
            room = self._most - len(self._jobs)
            if room <= 0:
                await self._room.wait()
                continue
            try:
                leases = await self._queue.take(room, 0.0 if self._draining else _TAKE_S)
                if leases:
                    with self._scorer.traffic.live():
                        await self._begin(leases)
                elif self._draining and self._jobs:
                    await self._room.wait()
                elif self._draining:
                    return
            except QueueUnavailable as error:
                log.warning("no jobs can be taken for now: %s", error)
                await asyncio.sleep(_PAUSE_S)
            except Exception:
                log.exception("no jobs can be taken for now")
                await asyncio.sleep(_PAUSE_S)

    async def _begin(self, leases: Sequence[Lease]) -> None:
        try:
            rows = await asyncio.to_thread(self._ledger.begin, [lease.id for lease in leases], self.name)
        except NotBegun as error:
            log.warning("no jobs can be begun for now: %s", error.__cause__)
            for lease in leases:
                if (attempt := error.attempts.get(lease.id)) is None:
                    await told(self._queue.release(lease))
                else:
                    self._start(job := Attempt(lease, attempt), self._postpone(job, error))
            await asyncio.sleep(_PAUSE_S)
            return
        for lease in leases:
            row = rows.get(lease.id)
            if row is None:  # it has ended already
                self._runner.handover.forget(lease.id)
                await told(self._queue.done(lease))
                continue
            if row.attempts > 1:
                self._metrics.redeliveries.inc()
            self._start(job := Attempt(lease, row.attempts), self._run(job, row))

    def _start(self, job: Attempt, work: Coroutine[Any, Any, None]) -> None:
        if (old := self._jobs.get(job.lease.id)) is not None:  # the lease was lost, and came back to us
            old.task.cancel()
        self._jobs[job.lease.id] = job
        job.task = asyncio.create_task(work, name=f"inspection {job.lease.id}")
        job.task.add_done_callback(lambda _: self._left(job))

    def _left(self, job: Attempt) -> None:
        if self._jobs.get(job.lease.id) is job:
            del self._jobs[job.lease.id]
        self._room.set()

    # --- running ---

    async def _run(self, job: Attempt, row: InspectionRow) -> None:
        logs.note(
            inspection_id=row.id, request_id=row.request_id, model=row.model_hash[:12], recipe=row.recipe
        )
        with self._scorer.traffic.live():
            try:
                await self._do(job, row)
            except asyncio.CancelledError:
                if job.ended:
                    await told(self._queue.done(job.lease))
            except Exception as error:
                if not blameless(error):
                    raise
                await self._postpone(job, error)

    async def _do(self, job: Attempt, row: InspectionRow) -> None:
        """One attempt; raises what is no fault of the image's."""
        try:
            if row.attempts > self._max_attempts:
                reason = f"given up: {self._max_attempts} attempts ended with the process that made them"
                await self._fail(job, failed("too-many-attempts", reason))
            else:
                await self._inspect(job, row)
        except Expired:
            await self._fail(job, expired())
        except Cancelled:
            await self._return(job)
        except Exception as error:
            if blameless(error):
                raise
            await self._failed(job, row, error)

    async def _inspect(self, job: Attempt, row: InspectionRow) -> None:
        with span("inspect", kind="consumer", parent=row.trace_parent) as traced:
            traced.note(inlier__inspection_id=row.id, inlier__attempt=row.attempts)
            inspected = await self._runner.inspect(row)
            traced.note(inlier__verdict=inspected.values["verdict"])
            traced.note(inlier__model=inspected.values["model_hash"])
            job.ending = True
            with span("store result"):
                first = await self._ending.finish(row.id, inspected.values)
        logs.note(model=inspected.values["model_hash"][:12])
        log.info("inspected: %s", inspected.values["verdict"], extra=_measured(inspected.values))
        await told(self._queue.done(job.lease))
        if first:
            self._scorer.offer(row, inspected)

    async def _failed(self, job: Attempt, row: InspectionRow, error: Exception) -> None:
        if is_final(error) or row.attempts >= self._max_attempts:
            log.error("inspection failed", exc_info=error, extra={"inspection_id": row.id})
            await self._fail(job, failure(error))
            return
        log.warning("attempt %d failed: %r", row.attempts, error, extra={"inspection_id": row.id})
        await told(self._queue.release(job.lease))

    async def _fail(self, job: Attempt, values: dict[str, str]) -> None:
        job.ending = True
        if await self._ending.finish(job.lease.id, values):
            self._metrics.dead_letters.labels(values["error_code"]).inc()
        await told(self._queue.bury(job.lease, values["error_code"]))

    async def _postpone(self, job: Attempt, error: Exception) -> None:
        """It runs again, and this attempt does not count: that something is away is no fault of the image's.

        What wants storage comes when its lease has run out, all else as soon as the database answers.
        """
        log.warning("postponed: %r", error, extra={"inspection_id": job.lease.id})
        job.ending = True  # we hold it, whatever the database says of it meanwhile
        await asyncio.sleep(_PAUSE_S)
        while not await self._given_back(job) and not self._stopping:
            await asyncio.sleep(_PAUSE_S)
        if not wants_storage(error):
            await told(self._queue.release(job.lease))

    async def _return(self, job: Attempt) -> None:
        """We are stopping: another worker, or this one at its next start, has it at once."""
        log.info("stopped; it will run again", extra={"inspection_id": job.lease.id})
        await self._given_back(job)
        await told(self._queue.release(job.lease))

    async def _given_back(self, job: Attempt) -> bool:
        try:
            await asyncio.to_thread(self._ledger.give_back, job.lease.id, self.name, job.number)
        except SQLAlchemyError as error:
            log.warning("an attempt cannot be taken back for now: %s", error)
            return False
        return True

    # --- keeping ---

    def _heard(self, identifier: str) -> None:
        self._runner.handover.forget(identifier)
        if (job := self._jobs.get(identifier)) is not None:
            self._drop(job)

    def _drop(self, job: Attempt) -> None:
        """It is not ours any more: it ended elsewhere, or another worker has begun it."""
        if not job.ending and not job.ended:
            job.ended = True
            job.task.cancel()  # its place in the engine is free after the network call that runs

    async def _beat(self) -> None:
        """Keep the leases of what runs."""
        while True:
            await asyncio.sleep(self._beat_s)
            for job in list(self._jobs.values()):
                try:
                    await self._queue.renew(job.lease)
                except LeaseLost:
                    log.info("a lease was lost", extra={"inspection_id": job.lease.id})
                except QueueUnavailable as error:
                    log.warning("leases cannot be renewed for now: %s", error)
                    break

    async def _look(self) -> None:
        """Ask the database what is still ours: the bell may be missed, and a lost lease be taken."""
        while True:
            await asyncio.sleep(_LOOK_S)
            jobs = list(self._jobs.values())
            if not jobs:
                continue
            try:
                ours = await asyncio.to_thread(
                    self._ledger.attempts, [job.lease.id for job in jobs], self.name
                )
            except SQLAlchemyError as error:
                log.warning("cannot see for now which jobs are still ours: %s", error)
                continue
            for job in jobs:
                if ours.get(job.lease.id) != job.number:
                    self._drop(job)


def _measured(values: Mapping[str, Any]) -> dict[str, float]:
    return {"score": round(values["score"], 4), "duration_ms": values["latency_ms"]["total"]}
