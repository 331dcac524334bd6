"""Sends what is due in the outbox: at least once, in the order of creation, one process per sink at a time.

Several processes may run a dispatcher on one database; each sink has a lease.
A message the receiver refused is set aside and later ones overtake it; while a sink cannot be reached nothing
overtakes and nothing is given up.
"""

import asyncio
import logging
import os
import random
import socket
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import event
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from service.db.repository import outbox, sinks
from service.db.repository.outbox import Result
from service.db.session import Database
from service.db.tables import OutboxRow, SinkRow
from service.ids import new_id
from service.metrics import Metrics
from service.outbox.message import DeliveryError, message
from service.outbox.senders import Sender, Senders
from service.settings import Settings

log = logging.getLogger(__name__)
_POLL_S = 0.5
_GAUGES_S = 5.0
_FORGET_S = 600.0
_BATCH = 16
_BATCH_S = 20.0
_MARGIN_S = 10.0
_SINK_PAUSE_S = 300.0  # longest pause of a sink that is down: so soon it is found to be back
_DATABASE_RETRY_S = (0.2, 1.0, 5.0)


class Dispatcher:
    """One task that looks for work, and one per sink that has some."""

    def __init__(self, database: Database, settings: Settings, metrics: Metrics, senders: Senders) -> None:
        self.senders = senders
        self._database = database
        self._metrics = metrics
        self._retry_s = settings.sink_retry_s
        self._attempts = settings.sink_attempts
        self._keep = timedelta(days=settings.sink_keep_days)
        self._timeout_s = settings.sink_timeout_s
        self._lease_s = _BATCH_S + self._timeout_s + _MARGIN_S
        self._holder = f"{socket.gethostname()[:64]}-{os.getpid()}-{new_id()[-12:]}"
        self._failures: Counter[str] = Counter()  # of a sink, since something reached it
        self._drains: dict[str, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()
        self._stopping = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        event.listen(Session, "after_commit", self._committed)
        self._task = asyncio.create_task(self._run(), name="outbox")

    async def close(self) -> None:
        """Finish the messages that are on their way; the rest stays in the outbox."""
        if self._task is None:
            return
        event.remove(Session, "after_commit", self._committed)
        self._stopping = True
        self._wake.set()
        tasks = [self._task, *self._drains.values()]
        _, late = await asyncio.wait(tasks, timeout=self._timeout_s + _MARGIN_S)
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.senders.close()

    def _committed(self, session: Session) -> None:
        # Any session of this process, in whatever thread; waking the wrong dispatcher costs it one look.
        if session.info.pop(outbox.ANNOUNCED, False) and self._loop is not None:
            try:
                self._loop.call_soon_threadsafe(self._wake.set)
            except RuntimeError:  # our loop is closed: nobody is left to wake
                return

    async def _run(self) -> None:
        next_gauges = next_forget = time.monotonic()
        while not self._stopping:
            self._wake.clear()
            try:
                for sink_id in await asyncio.to_thread(self._waiting):
                    self._begin(sink_id)
                if time.monotonic() >= next_gauges:
                    next_gauges = time.monotonic() + _GAUGES_S
                    await asyncio.to_thread(self._gauge)
                    await self.senders.close_idle(set(self._drains))
                if time.monotonic() >= next_forget:
                    more = await asyncio.to_thread(self._forget)
                    next_forget = time.monotonic() + (1.0 if more else _FORGET_S)
            except OperationalError as error:
                log.warning("the outbox cannot be read yet: %s", error)
                await asyncio.sleep(_DATABASE_RETRY_S[-1])
            except Exception:
                log.exception("looking after the outbox failed; it goes on")
                await asyncio.sleep(_DATABASE_RETRY_S[-1])
            try:
                await asyncio.wait_for(self._wake.wait(), _POLL_S)
            except TimeoutError:
                continue

    def _begin(self, sink_id: str) -> None:
        if sink_id in self._drains or self._stopping:
            return
        task = asyncio.create_task(self._drain(sink_id), name=f"sink {sink_id}")
        self._drains[sink_id] = task

        def ended(done: asyncio.Task[None]) -> None:
            del self._drains[sink_id]
            if not done.cancelled() and (error := done.exception()) is not None:
                log.error("sending to a sink broke off; it is tried again", exc_info=error)

        task.add_done_callback(ended)

    async def _drain(self, sink_id: str) -> None:
        """Send until nothing is due, the sink has to rest, or we stop."""
        while not self._stopping:
            until = time.monotonic() + _BATCH_S
            taken = await asyncio.to_thread(self._take, sink_id)
            if taken is None:
                return
            sink, rows = taken
            if not rows:
                break
            sender = await self.senders.of(sink)
            results, rest_s = await self._send(sink, sender, rows, until)
            await self._settle(sink_id, results, rest_s)
            if rest_s is not None:
                return
        await asyncio.to_thread(self._release, sink_id)

    async def _send(
        self, sink: SinkRow, sender: Sender, rows: Sequence[OutboxRow], until: float
    ) -> tuple[list[Result], float | None]:
        """What became of the messages, and for how long the sink should rest."""
        results: list[Result] = []
        for row in rows:
            if self._stopping or time.monotonic() > until:
                break
            try:
                await sender.send(message(row))
            except DeliveryError as error:
                results.append(self._failed(sink, row, error))
                if error.rest:
                    return results, self._pause_of(sink, error)
            except Exception:
                log.exception("a sender failed", extra={"sink": sink.name})
                wrong = DeliveryError("the service failed to send it; the log has the reason")
                results.append(self._failed(sink, row, wrong))
                return results, self._pause_of(sink, wrong)
            else:
                self._failures.pop(sink.id, None)
                results.append(Result(row.id))
                self._metrics.deliveries.labels(sink.kind, "delivered").inc()
        return results, None

    def _failed(self, sink: SinkRow, row: OutboxRow, error: DeliveryError) -> Result:
        detail = str(error)[:500]
        if error.unreachable:
            self._metrics.deliveries.labels(sink.kind, "unreachable").inc()
            return Result(row.id, detail, counted=False, next_at=datetime.now(UTC))
        tried = row.attempts + 1
        if tried >= self._attempts:
            log.warning("a message was given up: %s", detail, extra={"sink": sink.name, "message_id": row.id})
            self._metrics.deliveries.labels(sink.kind, "dead").inc()
            return Result(row.id, detail)
        self._metrics.deliveries.labels(sink.kind, "failed").inc()
        pause_s = _backoff(self._retry_s, tried, outbox.LONGEST_PAUSE_S)
        return Result(row.id, detail, next_at=datetime.now(UTC) + timedelta(seconds=pause_s))

    def _pause_of(self, sink: SinkRow, error: DeliveryError) -> float:
        self._failures[sink.id] += 1
        if self._failures[sink.id] == 1:
            log.warning("messages wait for a sink: %s", error, extra={"sink": sink.name})
        pause_s = _backoff(self._retry_s, self._failures[sink.id], _SINK_PAUSE_S)
        return max(pause_s, error.retry_after_s or 0.0)

    async def _settle(self, sink_id: str, results: list[Result], rest_s: float | None) -> None:
        def write() -> None:
            with self._database.write() as session:
                outbox.settle(session, results)
                if rest_s is not None:
                    until = datetime.now(UTC) + timedelta(seconds=rest_s)
                    outbox.rest(session, sink_id, self._holder, until)

        for pause_s in (*_DATABASE_RETRY_S, None):
            try:
                await asyncio.to_thread(write)
                return
            except OperationalError as error:
                if pause_s is None:
                    raise  # what was delivered will be once more: at least once
                log.warning("deliveries cannot be noted yet: %s", error)
                await asyncio.sleep(pause_s)

    def _waiting(self) -> list[str]:
        with self._database.read() as session:
            return outbox.waiting(session, self._lease_s)

    def _take(self, sink_id: str) -> tuple[SinkRow, Sequence[OutboxRow]] | None:
        with self._database.write() as session:
            return outbox.take(session, sink_id, self._holder, limit=_BATCH, lease_s=self._lease_s)

    def _release(self, sink_id: str) -> None:
        with self._database.write() as session:
            outbox.release(session, sink_id, self._holder)

    def _gauge(self) -> None:
        with self._database.read() as session:
            depths = [outbox.depth(session, sink.id) for sink in sinks.all_by_name(session)]
        oldest = min((depth.oldest for depth in depths if depth.oldest is not None), default=None)
        age_s = 0.0 if oldest is None else (datetime.now(UTC) - oldest).total_seconds()
        self._metrics.outbox_depth.set(sum(depth.pending for depth in depths))
        self._metrics.outbox_dead.set(sum(depth.dead for depth in depths))
        self._metrics.outbox_oldest.set(max(0.0, age_s))

    def _forget(self) -> bool:
        """Remove old deliveries; whether there are more."""
        before, most = datetime.now(UTC) - self._keep, 0
        with self._database.read() as session:
            known = [sink.id for sink in sinks.all_by_name(session)]
        for sink_id in known:
            with self._database.write() as session:
                most = max(most, outbox.forget(session, sink_id, before))
        return most > 0


def _backoff(first_s: float, tried: int, longest_s: float) -> float:
    """Doubling pauses with jitter, so that what failed together does not come back together."""
    wanted: Any = first_s * 2.0 ** min(tried - 1, 30)
    return float(min(wanted, longest_s) * random.uniform(0.5, 1.0))
