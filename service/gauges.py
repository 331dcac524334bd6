"""Metrics that only the database knows: read now and then by each API process, not when somebody scrapes."""

import asyncio
import logging
import time
from datetime import UTC, datetime, timedelta

from prometheus_client import Gauge
from sqlalchemy.exc import SQLAlchemyError

from service.db.repository import recipes, reviews, runs
from service.db.session import Database
from service.drift.watch import DriftWatch
from service.engines import EnginePool
from service.ids import id_time
from service.metrics import Metrics
from service.recipes.limits import Limits, Place
from service.recipes.whatif import Estimate, WhatIf

log = logging.getLogger(__name__)
_BACKLOG_S = 15.0
_ESTIMATES_S = 300.0
_SPAN = timedelta(days=7)
_MOST = 20_000  # inspections that an estimate rests on
BACKLOG_MOST = 100_000


class Gauges:
    """Backlog and retraining every 15 s; drift, escape and overkill of the last week every five minutes."""

    def __init__(
        self,
        database: Database,
        engines: EnginePool,
        drift: DriftWatch,
        metrics: Metrics,
    ) -> None:
        self._database, self._engines, self._metrics = database, engines, metrics
        self._drift = drift
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="gauges")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        next_estimates = time.monotonic()
        while True:
            try:
                await asyncio.to_thread(self.backlog)
                await asyncio.to_thread(self.retraining)
                if time.monotonic() >= next_estimates:
                    next_estimates = time.monotonic() + _ESTIMATES_S
                    await asyncio.to_thread(self.estimates)
                    await asyncio.to_thread(self.drift)
            except SQLAlchemyError as error:
                log.warning("metrics cannot be read from the database for now: %s", error)
            except Exception:
                log.exception("metrics could not be read from the database")
            await asyncio.sleep(_BACKLOG_S)

    def backlog(self) -> None:
        """What waits for people, counted up to 100 000."""
        with self._database.read() as session:
            count, oldest = reviews.backlog(session, BACKLOG_MOST)
        age_s = 0.0 if oldest is None else (datetime.now(UTC) - id_time(oldest)).total_seconds()
        self._metrics.review_backlog.set(count)
        self._metrics.review_oldest.set(max(0.0, age_s))

    def retraining(self) -> None:
        """When the newest run of each outcome ended; of one that goes on, when it began."""
        with self._database.read() as session:
            found = runs.newest(session)
        self._metrics.retraining.clear()
        for recipe, state, at in found:
            self._metrics.retraining.labels(self._metrics.recipe(recipe), state).set(at.timestamp())

    def estimates(self) -> None:
        """Escape and overkill of every recipe in use, under the limits in force, where reviews allow one."""
        with self._database.read() as session:
            names = recipes.names(session)
        found = {name: self._what_limits_do(name) for name in names}
        self._metrics.escape.clear()
        self._metrics.overkill.clear()
        for name, one in found.items():
            self._show(self._metrics.escape, name, one.escape)
            self._show(self._metrics.overkill, name, one.overkill)

    def drift(self) -> None:
        """How far scores and pictures of every recipe in use lie from where they were."""
        with self._database.read() as session:
            names = recipes.names(session)
        seen = {name: self._drift.look(name) for name in names}
        self._metrics.drift_psi.clear()
        self._metrics.drift_alarm.clear()
        for name, one in seen.items():
            for trait, finding in one.findings.items():
                labels = self._metrics.recipe(name), trait
                self._metrics.drift_psi.labels(*labels).set(finding.psi)
                self._metrics.drift_alarm.labels(*labels).set(finding.alarm)

    def _what_limits_do(self, recipe: str) -> WhatIf:
        # Limits of our own: a span that moves with time would fill the memory that people's previews share.
        place, limits = self._place(recipe), Limits(self._database)
        span = limits.span(place, datetime.now(UTC) - _SPAN, None)
        return limits.preview(place, limits.in_force(place).limits, span, _MOST, 1).found

    def _place(self, recipe: str) -> Place:
        model = self._engines.serving(recipe)
        profile = self._engines.default_profile(recipe, model.manifest)
        return Place.of(recipe, model.hash, model.manifest, profile)

    def _show(self, gauge: Gauge, recipe: str, estimate: Estimate) -> None:
        if (share := estimate.share) is None:
            return
        label = self._metrics.recipe(recipe)
        for bound, value in (("estimate", share.value), ("low", share.low), ("high", share.high)):
            gauge.labels(label, bound).set(value)
