"""What a process of the service consists of: opened in order, and closed in the reverse order.

`serve` accepts and, unless its workers are separate, runs; `worker` only runs.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from models.engine import Engine
from service.accept import Acceptor
from service.admission import Admission
from service.batching import Batching, open_batching
from service.blobs.open import open_blobs
from service.db.session import Database
from service.decode import Decoder
from service.ending import Ending
from service.engines import EnginePool
from service.errors import StartupError
from service.folder import DataFolder
from service.ledger import Ledger
from service.metrics import Metrics
from service.prepare import Handover
from service.queue.base import Bell, Queue, QueueUnavailable
from service.queue.memory import MemoryBell, MemoryQueue
from service.runner import Runner
from service.settings import Settings
from service.shadow.scorer import Scorer
from service.shadow.shadows import Shadows
from service.shadow.traffic import Traffic
from service.sweeper import Sweeper
from service.version import installed_version
from service.worker import Worker

log = logging.getLogger(__name__)
_IO_THREADS = 32


@dataclass
class Runtime:
    """The parts; `deadline` (monotonic) is when a stop that was asked for must be over."""

    ledger: Ledger
    queue: Queue
    bell: Bell
    engines: EnginePool
    decoder: Decoder
    ending: Ending
    admission: Admission
    acceptor: Acceptor
    sweeper: Sweeper
    scorer: Scorer
    worker: Worker | None
    deadline: float | None = None

    @property
    def healthy(self) -> bool:
        """Whether this process does its part."""
        return not self.admission.closed and (self.worker is None or self.worker.healthy)


async def open_store(settings: Settings, stack: AsyncExitStack) -> Ledger:
    """Database and blobs, closed by `stack`; StartupError says what to do."""
    # Threads here mostly wait for the disk; reads must not queue up behind a few slow commits.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_IO_THREADS, "io"))
    shared = settings.redis_url is not None
    folder = await asyncio.to_thread(DataFolder, settings.data, shared=shared)
    stack.callback(folder.close)
    database = Database(settings.url)
    stack.callback(database.close)
    await asyncio.to_thread(database.migrate)
    blobs = await asyncio.to_thread(open_blobs, settings, alone=folder.alone)
    if shared:
        folder.share()
    return Ledger(database, blobs)


async def open_runtime(
    settings: Settings,
    metrics: Metrics,
    stack: AsyncExitStack,
    ledger: Ledger,
    engine: Engine | None = None,
    *,
    runs: bool,
) -> Runtime:
    """Queue, engines, and what accepts and ends, closed by `stack`; `runs`: with a worker."""
    _show_process(settings, metrics)
    queue, bell = await _queue(settings, stack)
    decoder = Decoder(settings.max_pixels, settings.decode_processes, settings.decode_timeout_s)
    stack.callback(decoder.close)
    ending = Ending(ledger, bell, metrics)
    admission = Admission(ledger, bell, settings, metrics)
    stack.push_async_callback(admission.close)
    engines = EnginePool(
        ledger.database, settings, metrics, _make_batcher(settings, metrics) if runs else None
    )
    handover = Handover(settings.queue_size)
    runner, traffic = Runner(ledger, engines, decoder, handover), Traffic()
    shadows = Shadows(ledger.database, engines, settings, metrics, traffic)
    scorer = Scorer(ledger, engines, shadows, runner, metrics, traffic, settings.shadow_backlog)
    worker = Worker(queue, bell, ledger, runner, ending, scorer, metrics, settings) if runs else None
    acceptor = Acceptor(
        queue,
        bell,
        ledger,
        engines,
        decoder,
        admission,
        metrics,
        handover if runs else None,
        traffic,
        settings.strict_recipes,
    )
    sweeper = Sweeper(queue, ledger, ending, settings.sweep_s)
    runtime = Runtime(
        ledger, queue, bell, engines, decoder, ending, admission, acceptor, sweeper, scorer, worker
    )
    await _start(runtime, settings, stack, engine)
    return runtime


async def _start(runtime: Runtime, settings: Settings, stack: AsyncExitStack, engine: Engine | None) -> None:
    if runtime.worker is not None:
        stack.push_async_callback(runtime.worker.end)
    stack.push_async_callback(lambda: runtime.engines.close(_left_s(runtime)))
    await runtime.engines.open(engine)
    await runtime.decoder.warm_up()
    stack.push_async_callback(runtime.sweeper.close)
    try:
        await runtime.sweeper.sweep()  # what the last process left
    except (QueueUnavailable, SQLAlchemyError) as error:
        log.warning("unfinished inspections are queued later: %s", error)
    runtime.admission.start()
    if runtime.worker is not None:
        runtime.worker.start()
        runtime.scorer.start()
    runtime.sweeper.start()

    async def stop() -> None:
        if runtime.deadline is None:
            runtime.deadline = time.monotonic() + settings.shutdown_grace_s
        runtime.admission.closed = True
        await runtime.scorer.close()
        if runtime.worker is not None:
            # What waits in Redis is for others; what waits in this process would wait for its next start.
            await runtime.worker.stop(runtime.deadline, drain=settings.redis_url is None)

    stack.push_async_callback(stop)
    model = runtime.engines.own
    log.info("ready: model %s %s (%s)", model.manifest.name, model.manifest.version, model.hash[:12])


def _show_process(settings: Settings, metrics: Metrics) -> None:
    metrics.build.labels(installed_version()).set(1)
    metrics.watch_disk("data", settings.data)
    if settings.blobs is not None and "://" not in settings.blobs:
        metrics.watch_disk("blobs", Path(settings.blobs))


def _left_s(runtime: Runtime) -> float:
    return max(0.0, (runtime.deadline or 0.0) - time.monotonic())


def _make_batcher(settings: Settings, metrics: Metrics) -> Callable[[Engine], Batching]:
    def make(engine: Engine) -> Batching:
        return open_batching(
            settings.batching,
            engine,
            metrics,
            batch_size=settings.batch_size,
            batch_delay_s=settings.batch_delay_ms / 1000,
        )

    return make


async def _queue(settings: Settings, stack: AsyncExitStack) -> tuple[Queue, Bell]:
    if settings.redis_url is None:
        return MemoryQueue(settings.lease_s), MemoryBell()
    from service.queue.bell import RedisBell  # with Redis' client, which takes long to load
    from service.queue.streams import StreamQueue

    try:
        queue, bell = StreamQueue(settings.redis_url, settings.lease_s), RedisBell(settings.redis_url)
    except ValueError as error:
        raise StartupError(f"--redis-url (INLIER_REDIS_URL) cannot be used: {error}") from None
    stack.push_async_callback(bell.close)
    stack.push_async_callback(queue.close)
    try:
        await queue.open()
    except QueueUnavailable as error:
        log.warning("%s; images are accepted all the same, and run once it is there", error)
    return queue, bell
