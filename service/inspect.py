"""The pipeline, top to bottom, in the order data flows.

    bytes -> decode -> image blob and row (committed; only now the client is told) -> preprocess
          -> batcher -> engine -> verdict and regions -> heatmap and reconstruction blobs -> row

The database is the truth: what a stopped or killed process left unfinished is run at the next start.
"""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from sqlalchemy.exc import OperationalError

from models.bundle import Thresholds
from models.decode import Image
from models.engine import Engine
from models.preprocess import preprocess
from models.samplers import Cancelled, digest_seed
from service import render
from service.batching import Finished, Job, StaticBatcher
from service.blobs import BlobMissing
from service.db.tables import InspectionRow
from service.decode import Decoder
from service.errors import InspectionError, as_inspection_error
from service.ledger import Accepted, Ledger, new_row, request_digest
from service.metadata import Metadata
from service.metrics import Metrics
from service.settings import Settings
from service.verdict import EngineOutputError, judge

log = logging.getLogger(__name__)
_FINISH_RETRIES_S = (0.1, 0.5, 2.0, 8.0)
_RECOVERY_RETRY_S = 5.0


class Inspector:
    """Owns the way of an image through the service."""

    def __init__(self, engine: Engine, ledger: Ledger, settings: Settings, metrics: Metrics) -> None:
        self._engine = engine
        self._ledger = ledger
        self._metrics = metrics
        self._grace_s = settings.shutdown_grace_s
        self.deadline: float | None = None  # monotonic; when a stop asked earlier must be over
        self._default_profile = settings.profile or engine.manifest.default_profile[engine.device]
        self._decoder = Decoder(settings.max_pixels, settings.decode_processes, settings.decode_timeout_s)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._marks: set[asyncio.Task[None]] = set()
        self._recovery: asyncio.Task[None] | None = None
        self._recovering = asyncio.Semaphore(2 * settings.batch_size)
        self.batcher = StaticBatcher(
            engine,
            metrics,
            queue_size=settings.queue_size,
            batch_size=settings.batch_size,
            batch_delay_s=settings.batch_delay_ms / 1000,
            on_start=self._mark_running,
        )

    async def start(self) -> None:
        """Warm the engine up, then take up what the last process left."""
        await self.batcher.warm_up(self._default_profile)
        newest = await asyncio.to_thread(self._ledger.newest_id)
        if newest is not None:
            self._recovery = asyncio.create_task(self._recover(newest), name="recovery")

    async def close(self) -> None:
        """Finish accepted work within the grace period; the rest stays queued in the database."""
        deadline = self.deadline if self.deadline is not None else time.monotonic() + self._grace_s
        if self._recovery is not None:
            self._recovery.cancel()
            await asyncio.gather(self._recovery, return_exceptions=True)
        if self._tasks:
            log.info("finishing %d accepted inspections", len(self._tasks))
            await asyncio.wait(self._tasks.values(), timeout=max(0.0, deadline - time.monotonic()))
        await self.batcher.close(max(0.0, deadline - time.monotonic()))
        self._decoder.close()
        await asyncio.gather(*self._tasks.values(), *self._marks, return_exceptions=True)

    def profile(self, asked: str | None) -> str:
        """The profile to run; InspectionError 422 for one the bundle does not have."""
        known = sorted(self._engine.manifest.profiles)
        if asked is not None and asked not in known:
            detail = f"profile {asked!r} is not in this model's bundle; known: {', '.join(known)}"
            raise InspectionError(422, "unknown-profile", detail, extra={"profiles": known})
        return asked or self._default_profile

    async def accept(self, data: bytes, metadata: Metadata, key: str | None = None) -> Accepted:
        """Store an image and its row, durably, and set it on its way."""
        started = time.monotonic()
        profile = self.profile(metadata.profile)
        digest = await asyncio.to_thread(request_digest, data, metadata)
        if key is not None and (earlier := await asyncio.to_thread(self._ledger.replay, key, digest)):
            return Accepted(earlier, replayed=True)
        with ExitStack() as place:
            place.enter_context(self.batcher.place())
            image = await self._decoder.decode(data)
            decoded = time.monotonic()
            row = new_row(image, metadata, profile, digest, key)
            accepted = await asyncio.to_thread(self._ledger.accept, row, data)
            if not accepted.replayed:
                spent = {"decode": decoded - started, "store": time.monotonic() - decoded}
                self._metrics.accepted.inc()
                self._spawn(row, image, place.pop_all(), spent, started)
        return accepted

    async def wait(self, identifier: str, seconds: float) -> None:
        """Return when the inspection has ended, or after `seconds`."""
        task = self._tasks.get(identifier)
        if task is not None and seconds > 0:
            await asyncio.wait([task], timeout=seconds)

    def _spawn(
        self, row: InspectionRow, image: Image, place: ExitStack, spent_s: dict[str, float], started: float
    ) -> None:
        work = self._process(row, image, place, spent_s, started)
        task = asyncio.create_task(work, name=f"inspection {row.id}")
        self._tasks[row.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(row.id, None))

    async def _process(
        self, row: InspectionRow, image: Image, place: ExitStack, spent_s: dict[str, float], started: float
    ) -> None:
        """From a decoded image to a finished row; whatever fails on the way is stored as an ERROR."""
        with place:
            try:
                begun = time.monotonic()
                spec = self._engine.manifest.preprocess
                tensor = await asyncio.to_thread(preprocess, image, spec)
                del image  # a full queue holds network inputs, not 64-megapixel originals
                spent_s["preprocess"] = time.monotonic() - begun
                seed = digest_seed(row.image_sha256)  # the same image gives the same verdict
                finished = await self.batcher.submit(Job(row.id, tensor, seed, row.profile))
                spent_s |= {"queue": finished.queue_s, "inference": finished.inference_s}
                values = await asyncio.to_thread(self._conclude, row, finished, spent_s, started)
            except Cancelled:
                log.info("stopped; it will run at the next start", extra={"inspection_id": row.id})
                return
            except Exception as error:
                log.exception("inspection failed", extra={"inspection_id": row.id})
                values = _failure(error)
            await self._finish(row, values)

    def _conclude(
        self, row: InspectionRow, finished: Finished, spent_s: dict[str, float], started: float
    ) -> dict[str, Any]:
        """Judge the map, store what people will look at, and return the columns of the finished row."""
        begun = time.monotonic()
        raw, calibration = finished.result, self._engine.manifest.calibration[row.profile]
        limits = self._ledger.thresholds(row.recipe, row.profile)
        size = (row.image_height_px, row.image_width_px)
        judged = judge(raw, calibration, Thresholds(review=limits.review, reject=limits.reject), size)
        heatmap, scale = render.encode_map(raw.map)
        values: dict[str, Any] = {
            "status": "done",
            "verdict": judged.verdict.value,
            "score_raw": raw.score,
            "score": judged.score,
            "threshold_id": limits.id,
            "review": limits.review,
            "reject": limits.reject,
            "regions": judged.regions,
            "heatmap_sha256": self._ledger.blobs.put(heatmap),
            "heatmap_media_type": render.PNG,
            "heatmap_scale": scale,
            "heatmap_max": calibration.map_max,
            "reconstruction_sha256": self._ledger.blobs.put(render.encode_reconstruction(raw.reconstruction)),
            "reconstruction_media_type": render.PNG,
        }
        now = time.monotonic()
        spent_s |= {"postprocess": now - begun, "total": now - started}
        values["latency_ms"] = {stage: round(1000 * seconds, 3) for stage, seconds in spent_s.items()}
        return values

    async def _finish(self, row: InspectionRow, values: Mapping[str, Any]) -> None:
        """Store the end, also through a short outage of the database."""
        for pause_s in (*_FINISH_RETRIES_S, None):
            try:
                first = await asyncio.to_thread(self._ledger.finish, row, values)
                break
            except OperationalError as error:
                if pause_s is None:
                    log.error("no result could be stored: %s", error, extra={"inspection_id": row.id})
                    return  # still queued in the database: it runs again at the next start
                await asyncio.sleep(pause_s)
        if first:
            self._count(row, values)

    def _count(self, row: InspectionRow, values: Mapping[str, Any]) -> None:
        recipe, line = self._metrics.recipe(row.recipe), self._metrics.line(row.line)
        self._metrics.inspections.labels(recipe, line, values["verdict"]).inc()
        if values["status"] == "failed":
            self._metrics.errors.labels(values["error_code"]).inc()
            return
        self._metrics.score.labels(recipe).observe(values["score"])
        for stage, spent_ms in values["latency_ms"].items():
            self._metrics.stage.labels(stage).observe(spent_ms / 1000)

    def _mark_running(self, identifiers: Sequence[str]) -> None:
        # Beside the engine, not before it: the row says what is going on, nothing depends on it.
        async def run() -> None:
            try:
                await asyncio.to_thread(self._ledger.start, identifiers)
            except OperationalError as error:
                log.warning("could not mark inspections as running: %s", error)

        task = asyncio.create_task(run())
        self._marks.add(task)
        task.add_done_callback(self._marks.discard)

    async def _recover(self, until: str) -> None:
        """Run what was accepted before this process and never finished, oldest first."""
        after, count = "", 0
        while True:
            try:
                rows = await asyncio.to_thread(self._ledger.pending, after, until)
            except OperationalError as error:
                log.warning("unfinished inspections cannot be read yet: %s", error)
                await asyncio.sleep(_RECOVERY_RETRY_S)
                continue
            if not rows:
                break
            for row in rows:
                after = row.id
                if row.id in self._tasks:  # accepted by this process, under a clock that was set back
                    continue
                count += 1
                await self._recovering.acquire()
                await self._resume(row)
        if count:
            log.info("took up %d unfinished inspections", count)

    async def _resume(self, row: InspectionRow) -> None:
        place = ExitStack()
        place.callback(self._recovering.release)
        started = time.monotonic()
        try:
            data = await asyncio.to_thread(self._ledger.blobs.get, row.image_sha256)
            image = await self._decoder.decode(data)
        except Exception as error:
            with place:
                log.exception("inspection cannot be taken up", extra={"inspection_id": row.id})
                await self._finish(row, _failure(error))
            return
        if row.profile not in self._engine.manifest.profiles:
            row.profile = self._default_profile
        place.enter_context(self.batcher.place(force=True))
        self._spawn(row, image, place, {"decode": time.monotonic() - started}, started)


def _failure(error: Exception) -> dict[str, Any]:
    """The columns of an inspection that ended in an ERROR; what the engine said stays in the log."""
    code, detail = "engine-failed", "the model failed on this image; the log has the reason under its id"
    if isinstance(error, EngineOutputError):
        code, detail = "engine-output", f"the model gave no usable answer: {error}"
    elif isinstance(error, BlobMissing):
        code, detail = "image-missing", "the stored image is gone, so it cannot be inspected any more"
    elif isinstance(error, (InspectionError, OSError, OperationalError)):
        known = as_inspection_error(error)
        code, detail = known.code, known.detail
    return {"status": "failed", "verdict": "ERROR", "error_code": code, "error_detail": detail}
