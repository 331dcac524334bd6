"""The service broken on purpose, in one place each: the controls of the promises about what lasts."""

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from sqlalchemy import CursorResult, Select, inspect, select, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from service.blobs import DiskBlobs, Staged
from service.db.repository import inspections, outbox
from service.db.session import Database
from service.db.tables import InspectionRow, OutboxRow
from service.ledger import Accepted, Ledger
from service.outbox.dispatcher import Dispatcher
from service.queue.base import Lease
from service.queue.setback import Setback
from service.queue.streams import StreamQueue
from service.sweeper import Sweeper
from service.worker import Worker


def answers_first() -> None:
    """The caller is told before the row and the image are there."""
    really, stored, told = Ledger.accept, Ledger.get, dict[str, InspectionRow]()

    def accept(self: Ledger, row: InspectionRow, image: Staged) -> Accepted:
        told[row.id] = _as_if_stored(row, image)
        columns = {column.key: getattr(row, column.key) for column in inspect(InspectionRow).column_attrs}
        threading.Timer(0.05, really, (self, InspectionRow(**columns), image)).start()
        return Accepted(row, replayed=False)

    def get(self: Ledger, identifier: str) -> InspectionRow:
        return told.get(identifier) or stored(self, identifier)

    Ledger.accept = accept  # type: ignore[method-assign]
    Ledger.get = get  # type: ignore[method-assign]


def _as_if_stored(row: InspectionRow, image: Staged) -> InspectionRow:
    """With what it gets when it is written."""
    row.image_sha256 = image.name
    for column in inspect(InspectionRow).columns:
        if column.default is not None and getattr(row, column.key) is None:
            setattr(row, column.key, column.default.arg)
    return row


def acknowledges_first() -> None:
    """A job is acknowledged when it is taken, and no sweeper makes good for it."""
    really = StreamQueue.take

    async def take(self: StreamQueue, count: int, wait_s: float) -> list[Lease]:
        leases = await really(self, count, wait_s)
        for lease in leases:
            await self.done(lease)
        return leases

    async def sweep(self: Sweeper) -> int:
        return 0

    StreamQueue.take = take  # type: ignore[method-assign]
    Sweeper.sweep = sweep  # type: ignore[method-assign]


def never_renews() -> None:
    """A worker does not keep its leases."""

    async def beat(self: Worker) -> None: ...

    Worker._beat = beat  # type: ignore[method-assign]


def ends_twice() -> None:
    """The last end stands, and not the first one; a worker does not hear that another has ended an image."""

    def finish(session: Session, identifier: str, values: Mapping[str, Any]) -> bool:
        query = update(InspectionRow).where(InspectionRow.id == identifier)
        result = session.execute(query.values(**values).execution_options(synchronize_session=False))
        assert isinstance(result, CursorResult)
        return result.rowcount == 1

    def heard(self: Worker, identifier: str) -> None: ...

    inspections.finish = finish
    Worker._heard = heard  # type: ignore[method-assign]


def forgets_that_it_told() -> None:
    """Messages are sent and that is not noted."""

    async def settle(self: Dispatcher, sink_id: str, results: Sequence[object], rest_s: float | None) -> None:
        return None

    Dispatcher._settle = settle  # type: ignore[method-assign,assignment]


def passes_over_failures() -> None:
    """What cannot be stored is passed over, and accepted all the same."""
    stage, really, stored = DiskBlobs.stage, Ledger.accept, Ledger.get
    told = dict[str, InspectionRow]()

    class Passed:
        """Says that it is kept whatever happened."""

        def __init__(self, name: str, staged: Any = None) -> None:
            self.name, self._staged = name, staged

        def keep(self) -> str:
            with suppress(OSError):
                return self.name if self._staged is None else self._staged.keep()
            return self.name

        def drop(self) -> None:
            if self._staged is not None:
                self._staged.drop()

    def swallow(self: DiskBlobs, data: bytes) -> Any:
        name = hashlib.sha256(data).hexdigest()
        try:
            return Passed(name, stage(self, data))
        except OSError:
            return Passed(name)

    def accept(self: Ledger, row: InspectionRow, image: Staged) -> Accepted:
        try:
            return really(self, row, image)
        except OperationalError:
            told[row.id] = _as_if_stored(row, image)
            return Accepted(row, replayed=False)

    def get(self: Ledger, identifier: str) -> InspectionRow:
        return told.get(identifier) or stored(self, identifier)

    DiskBlobs.stage = swallow  # type: ignore[method-assign]
    Ledger.accept = accept  # type: ignore[method-assign]
    Ledger.get = get  # type: ignore[method-assign]


def counts_every_attempt() -> None:
    """An attempt counts whatever it ended with."""

    def give_back(self: Ledger, identifier: str, worker: str, attempt: int) -> None: ...

    Ledger.give_back = give_back  # type: ignore[method-assign]


def believes_the_clock() -> None:
    """Redis's clock is not looked at, messages wait for their time, ids are of the clock alone."""

    async def mend(self: Setback, *arguments: object) -> int:
        return 0

    def due(sink_id: str, now: datetime) -> Select[OutboxRow]:
        mine = (OutboxRow.sink_id == sink_id, OutboxRow.status == "pending", OutboxRow.next_at <= now)
        return select(OutboxRow).where(*mine).order_by(OutboxRow.id)

    def follow(self: Database) -> None: ...

    Setback.mend = mend  # type: ignore[method-assign]
    outbox._due = due
    Database._follow = follow  # type: ignore[method-assign]


BROKEN: dict[str, Callable[[], None]] = {
    done.__name__: done
    for done in (
        answers_first,
        acknowledges_first,
        never_renews,
        ends_twice,
        forgets_that_it_told,
        passes_over_failures,
        counts_every_attempt,
        believes_the_clock,
    )
}
