"""Scores ended inspections with the shadows of their recipes, one after the other, when there is time.

    row committed -> offer -> backlog (bounded; what does not fit is skipped) -> shadow -> shadow_scores

Best effort: what waits here is lost with the process. Nothing here touches the inspection.
"""

import asyncio
import logging
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.exc import SQLAlchemyError

from models.anomaly import verdict
from models.bundle import Thresholds
from models.engine import RawMap
from models.samplers import Cancelled, digest_seed
from service.db.repository import shadow_scores, thresholds
from service.db.tables import InspectionRow, ShadowScoreRow
from service.engines import EnginePool
from service.ledger import Ledger
from service.metrics import Metrics
from service.runner import Inspected, Runner
from service.shadow.engine import Shadow, aside
from service.shadow.shadows import Shadows
from service.shadow.traffic import Traffic
from service.verdict import EngineOutputError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Ended:
    """An inspection with its end; `tensor` is what its model was given, where the shadow wants the same."""

    row: InspectionRow
    values: dict[str, Any]
    tensor: NDArray[np.float32] | None  # [C, H, W]


class Scorer:
    """The backlog of one process, and the one task that works on it."""

    def __init__(
        self,
        ledger: Ledger,
        engines: EnginePool,
        shadows: Shadows,
        runner: Runner,
        metrics: Metrics,
        traffic: Traffic,
        most: int,
    ) -> None:
        self._ledger, self._engines, self._runner = ledger, engines, runner
        self._shadows, self._metrics, self.traffic = shadows, metrics, traffic
        self._backlog: asyncio.Queue[_Ended] = asyncio.Queue(max(most, 1))
        self._on = most > 0
        self._closed = False
        self._troubled: set[str] = set()  # shadows whose failure was told in full
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._on:
            self._shadows.start()
            self._task = asyncio.create_task(self._run(), name="shadow scores")

    async def close(self) -> None:
        """Leave what waits, and what is being scored."""
        self._closed = True
        self.traffic.wake()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._shadows.close()

    def offer(self, row: InspectionRow, inspected: Inspected) -> None:
        """An inspection's end is stored: score it later, if its recipe has a shadow and there is room."""
        if self._closed or not self._shadows.wished(row.recipe):
            return
        shadow, values = self._shadows.find(row.recipe), inspected.values
        if shadow is None or self._backlog.full():
            self._metrics.shadow_skipped.labels(self._metrics.recipe(row.recipe)).inc()
        elif shadow.hash != values["model_hash"]:
            alike = shadow.manifest.preprocess == inspected.preprocess
            self._backlog.put_nowait(_Ended(row, values, inspected.prepared.tensor if alike else None))

    async def _run(self) -> None:
        while True:
            ended = await self._backlog.get()
            recipe = self._metrics.recipe(ended.row.recipe)
            shadow = self._shadows.find(ended.row.recipe)
            try:
                if shadow is None or shadow.hash == ended.values["model_hash"]:
                    raise Cancelled("the shadow has ended")
                await self._score(ended, shadow)
            except Cancelled:
                self._metrics.shadow_skipped.labels(recipe).inc()
            except SQLAlchemyError as error:
                self._metrics.shadow_failed.labels(recipe).inc()
                log.warning("a shadow's score could not be stored: %s", error)
            except Exception as error:
                self._metrics.shadow_failed.labels(recipe).inc()
                self._tell(ended, shadow, error)

    async def _score(self, ended: _Ended, shadow: Shadow) -> None:
        row = ended.row
        await self._idle()
        tensor = ended.tensor
        if tensor is None:
            tensor = (await self._runner.load(row, shadow.hash, shadow.manifest.preprocess)).tensor
        ignore = await asyncio.to_thread(self._runner.masks.for_scoring, row.mask_id)
        profile = self._engines.default_profile(row.recipe, shadow.manifest)
        raw, spent_s = await shadow.score(tensor, digest_seed(row.image_sha256), profile, ignore)
        await self._idle()  # live images go first at the database, too
        score = await asyncio.to_thread(self._conclude, ended, shadow, profile, raw, spent_s)
        if await asyncio.to_thread(shadow_scores.add, self._ledger.database, score):
            recipe = self._metrics.recipe(row.recipe)
            self._metrics.shadow_scored.labels(recipe).inc()
            self._metrics.shadow_disagreements.labels(recipe).inc(int(score.disagrees))

    async def _idle(self) -> None:
        """Wait until nothing live is in hand."""
        await aside(lambda: self.traffic.wait(lambda: self._closed))

    def _conclude(
        self, ended: _Ended, shadow: Shadow, profile: str, raw: RawMap, spent_s: float
    ) -> ShadowScoreRow:
        """The score under the shadow's own limits, which are its bundle's until somebody sets others."""
        if not math.isfinite(raw.score):
            raise EngineOutputError(f"the score is {raw.score}")
        recipe, values, calibration = ended.row.recipe, ended.values, shadow.manifest.calibration[profile]
        with self._ledger.database.read() as session:
            found = thresholds.newest(session, recipe, shadow.hash, profile)
        limits: Thresholds | Any = calibration.suggested if found is None else found
        score = calibration.score.calibrate(raw.score)
        decided = verdict(score, limits.review, limits.reject).value
        return ShadowScoreRow(
            inspection_id=ended.row.id,
            model_hash=shadow.hash,
            recipe=recipe,
            profile=profile,
            score_raw=raw.score,
            score=score,
            review=limits.review,
            reject=limits.reject,
            verdict=decided,
            latency_ms=round(1000 * spent_s, 3),
            active_hash=values["model_hash"],
            active_score=values["score"],
            active_verdict=values["verdict"],
            active_latency_ms=values["latency_ms"]["inference"],
            disagrees=decided != values["verdict"],
            created_at=datetime.now(UTC),
        )

    def _tell(self, ended: _Ended, shadow: Shadow | None, error: Exception) -> None:
        """The first failure of a shadow in full; the others are counted."""
        model_hash = "" if shadow is None else shadow.hash
        level = logging.DEBUG if model_hash in self._troubled else logging.ERROR
        self._troubled.add(model_hash)
        log.log(
            level,
            "shadow %s failed on an image",
            model_hash[:12],
            exc_info=error,
            extra={"inspection_id": ended.row.id},
        )
