"""Accepting an image, and waiting for its result.

    bytes -> decode, and to the disk -> image blob and row (committed; only now the client is told) -> queue

The database is the truth: a job that the queue did not take, or lost, is queued again by the sweeper.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import cast

from sqlalchemy.exc import SQLAlchemyError

from models.decode import Image
from service import logs, tracing
from service.access.principal import Principal
from service.admission import Admission
from service.blobs import Staged
from service.db.tables import InspectionRow
from service.decode import Decoder
from service.engine_loader import Model
from service.engines import EnginePool
from service.ledger import Accepted, Ledger, new_row, request_digest
from service.metadata import Metadata
from service.metrics import Metrics
from service.prepare import Handover, Prepared
from service.queue.base import Bell, Priority, Queue, QueueUnavailable
from service.recipes.book import RecipeBook
from service.runner import prepare
from service.shadow.traffic import Traffic
from service.tracing import span

log = logging.getLogger(__name__)
_PUT_S = 1.0
_LOOK_S = 1.0
Read = Callable[[], Awaitable[tuple[bytes, Metadata]]]


class Acceptor:
    """The front of the pipeline; with a `handover` this process runs what it accepts."""

    def __init__(
        self,
        queue: Queue,
        bell: Bell,
        ledger: Ledger,
        engines: EnginePool,
        decoder: Decoder,
        admission: Admission,
        metrics: Metrics,
        handover: Handover | None,
        traffic: Traffic,
        strict_recipes: bool = False,
    ) -> None:
        self._queue, self._ledger, self._engines = queue, ledger, engines
        self._decoder, self._metrics, self._handover = decoder, metrics, handover
        self.admission, self._traffic = admission, traffic
        self._book, self._strict = RecipeBook(ledger.database), strict_recipes
        self._waiters: dict[str, set[asyncio.Event]] = {}
        bell.listen(self._heard)

    async def accept(
        self, read: Read, who: Principal, key: str | None = None, *, wait_s: float = 0.0
    ) -> Accepted:
        """Store an image and its row, durably, set it on its way, and wait so long for its end.

        `read` receives what was sent: nothing of a request that is refused for want of room; one that is
        repeated needs none.
        """
        if key is not None and await asyncio.to_thread(self._ledger.is_known, key):
            data, metadata = await read()
            sha256 = await asyncio.to_thread(lambda: hashlib.sha256(data).hexdigest())
            digest = request_digest(sha256, metadata)
            if (earlier := await asyncio.to_thread(self._ledger.replay, key, digest)) is not None:
                await self.wait(earlier.id, wait_s)
                return Accepted(earlier, replayed=True)
            raise RuntimeError("an inspection was removed while its request was repeated")
        with self.admission.place(who) as place:
            data, metadata = await read()
            with self._traffic.live(), span("accept", kind="producer") as traced:
                accepted = await self._store(data, metadata, key)
                traced.note(inlier__inspection_id=accepted.row.id, inlier__model=accepted.row.model_hash)
            logs.note(inspection_id=accepted.row.id, model=accepted.row.model_hash[:12])
            if not accepted.replayed:
                place.keep(accepted.row.id)
        if accepted.replayed:
            await self.wait(accepted.row.id, wait_s)
            return accepted
        origin = self._metrics.station.together(accepted.row.line, accepted.row.station)
        self._metrics.accepted.labels(*origin).inc()
        with self._listening(accepted.row.id) as ended:  # before it can end
            await self._enqueue(accepted.row)
            await self._wait(accepted.row.id, ended, wait_s)
        return accepted

    async def wait(self, identifier: str, seconds: float) -> None:
        """Return when the inspection has ended, or after `seconds`."""
        with self._listening(identifier) as ended:
            if seconds > 0 and not await self._has_ended(identifier):
                await self._wait(identifier, ended, seconds)

    @contextmanager
    def _listening(self, identifier: str) -> Iterator[asyncio.Event]:
        event = asyncio.Event()
        waiting = self._waiters.setdefault(identifier, set())
        waiting.add(event)
        try:
            yield event
        finally:
            waiting.discard(event)
            if not waiting:
                self._waiters.pop(identifier, None)

    async def _wait(self, identifier: str, ended: asyncio.Event, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left_s := deadline - time.monotonic()) > 0:
            try:
                # The bell may be missed, so now and then the database is asked.
                await asyncio.wait_for(ended.wait(), min(left_s, _LOOK_S))
                return
            except TimeoutError:
                if await self._has_ended(identifier):
                    return

    async def _has_ended(self, identifier: str) -> bool:
        try:
            return bool(await asyncio.to_thread(self._ledger.ended, [identifier]))
        except SQLAlchemyError:
            return False  # it may answer again before the wait is over

    def _heard(self, identifier: str) -> None:
        for event in self._waiters.get(identifier, ()):
            event.set()

    async def _store(self, data: bytes, metadata: Metadata, key: str | None) -> Accepted:
        started = time.monotonic()
        terms = await asyncio.to_thread(
            self._book.terms, metadata.recipe, metadata.attributes, strict=self._strict
        )
        profile = self._engines.profile(metadata.recipe, metadata.profile)
        model = self._engines.serving(metadata.recipe)
        async with self._received(data) as (image, staged):
            decode_s = time.monotonic() - started
            columns = {
                **model.columns,
                "profile": profile,
                "priority": metadata.priority,
                "mask_id": terms.mask_id,
                "request_id": logs.request_id.get() or None,
                "trace_parent": tracing.current(),
            }
            digest = request_digest(staged.name, metadata)
            row = new_row(image, metadata, columns, digest=digest, key=key, image_bytes=len(data))
            if (budget_ms := self._budget_ms(metadata)) is not None:
                row.deadline_at = datetime.now(UTC) + timedelta(milliseconds=budget_ms)

            def commit() -> tuple[Accepted, float]:
                begun = time.monotonic()
                return self._ledger.accept(row, staged), time.monotonic() - begun

            storing = asyncio.to_thread(commit)
            if self._handover is None:
                return (await storing)[0]
            (accepted, store_s), prepared = await asyncio.gather(
                storing, self._prepared(model, image, started, {"decode": decode_s})
            )
        if prepared is not None and not accepted.replayed:
            prepared.spent_s["store"] = store_s
            prepared.ready = time.monotonic()
            self._handover.give(row.id, prepared)
        return accepted

    @asynccontextmanager
    async def _received(self, data: bytes) -> AsyncIterator[tuple[Image, Staged]]:
        """The pixels, and the bytes on the disk already: decoding takes a processor, writing mostly waits."""
        image, staged = await asyncio.gather(
            self._decoder.decode(data),
            asyncio.to_thread(self._ledger.blobs.stage, data),
            return_exceptions=True,
        )
        try:
            if isinstance(image, BaseException):
                raise image
            if isinstance(staged, BaseException):
                raise staged
            yield image, staged
        finally:
            if not isinstance(staged, BaseException):
                staged.drop()  # nothing if it was kept

    async def _prepared(
        self, model: Model, image: Image, started: float, spent_s: dict[str, float]
    ) -> Prepared | None:
        try:
            return await prepare(model.hash, model.manifest.preprocess, image, started, spent_s)
        except Exception:  # the worker will meet it again, and store it as the inspection's end
            log.debug("an image could not be prepared", exc_info=True)
            return None

    def _budget_ms(self, metadata: Metadata) -> int | None:
        budgets = (self._engines.wish(metadata.recipe).latency_budget_ms, metadata.deadline_ms)
        return min((budget for budget in budgets if budget is not None), default=None)

    async def _enqueue(self, row: InspectionRow) -> None:
        try:
            async with asyncio.timeout(_PUT_S):
                await self._queue.put(row.id, cast(Priority, row.priority))
        except (QueueUnavailable, TimeoutError) as error:
            log.warning("not queued yet, the sweeper will: %s", error, extra={"inspection_id": row.id})
