"""The end of an inspection, whatever it is: stored once, counted, and told to whoever waits."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from service.access.recent import Recent
from service.conclude import expired, failed
from service.db.tables import InspectionRow
from service.errors import InspectionError, wants_database
from service.ledger import Ledger
from service.metrics import Metrics
from service.queue.base import Bell

log = logging.getLogger(__name__)
_RETRIES_S = (0.1, 0.5, 2.0, 8.0)
CANCELLED = "cancelled"
_KEPT_S = 1.0
_KEPT = 64


class NotStored(RuntimeError):
    """The database did not take the result; the job must not be acknowledged."""


class Ending:
    """Ends inspections; the first end stands."""

    def __init__(self, ledger: Ledger, bell: Bell, metrics: Metrics) -> None:
        self._ledger, self._bell, self._metrics = ledger, bell, metrics
        self._rows: Recent[InspectionRow] = Recent(_KEPT_S, _KEPT)

    def just_now(self, identifier: str) -> InspectionRow | None:
        """The row of what this process has ended within the last second, as it was stored then."""
        return self._rows.get(identifier)

    async def finish(self, identifier: str, values: Mapping[str, Any]) -> bool:
        """Store the end, also through a short outage (else NotStored); False if there was one already."""
        for pause_s in (*_RETRIES_S, None):
            try:
                row = await asyncio.to_thread(self._ledger.finish, identifier, values)
                break
            except SQLAlchemyError as error:
                if not wants_database(error):
                    raise
                if pause_s is None:
                    log.error("no result could be stored: %s", error, extra={"inspection_id": identifier})
                    raise NotStored(identifier) from error
                await asyncio.sleep(pause_s)
        if row is not None:
            self._count(row)
            self._rows.put(identifier, row)
        await self._bell.ring([identifier])
        return row is not None

    async def expire(self) -> int:
        """End what is past its deadline; how many there were."""
        found = await asyncio.to_thread(self._ledger.overdue)
        ended = [await self.finish(identifier, expired()) for identifier in found]
        return sum(ended)

    async def cancel(self, identifier: str) -> InspectionRow:
        """End an inspection without a verdict; again is no error, InspectionError 409 if it has a result."""
        detail = "cancelled on request"
        await self.finish(identifier, failed(CANCELLED, detail))
        row = await asyncio.to_thread(self._ledger.get, identifier)
        if row.error_code != CANCELLED:
            reason = (
                f"this inspection has ended already ({row.status}); only unfinished ones can be cancelled"
            )
            raise InspectionError(409, "already-ended", reason)
        return row

    def _count(self, row: InspectionRow) -> None:
        recipe, line = self._metrics.recipe(row.recipe), self._metrics.line(row.line)
        self._metrics.inspections.labels(recipe, line, row.verdict).inc()
        if row.status != "done" or row.score is None:
            self._metrics.errors.labels(row.error_code or "").inc()
            return
        self._metrics.score.labels(recipe).observe(row.score)
        for stage, spent_ms in row.latency_ms.items():
            self._metrics.stage.labels(stage).observe(spent_ms / 1000, {"inspection_id": row.id})
        origin = self._metrics.station.together(row.line, row.station)
        for metric, value in (
            (self._metrics.brightness, row.brightness),
            (self._metrics.sharpness, row.sharpness),
        ):
            if value is not None:
                metric.labels(*origin).observe(value)
