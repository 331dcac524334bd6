"""Rows and blobs together: each method is one step of an inspection's life and at most one transaction.

Everything here blocks and is called in a thread.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from models.bundle import Thresholds
from models.decode import Image
from service.api.schemas import document
from service.blobs import BlobStore, Staged
from service.db.repository import inspections, leases, outbox, search, thresholds
from service.db.repository.filters import Filter
from service.db.session import Database
from service.db.tables import InspectionRow, ThresholdRow
from service.errors import InspectionError
from service.ids import id_time, new_id
from service.metadata import Metadata
from service.queue.base import Priority


@dataclass(frozen=True)
class Accepted:
    """A durable row; `replayed` if an earlier request with the same idempotency key made it."""

    row: InspectionRow
    replayed: bool


class NotBegun(RuntimeError):
    """No attempt could be counted, or nobody knows: `attempts` by id are those whose COMMIT had no answer."""

    def __init__(self, attempts: Mapping[str, int]) -> None:
        super().__init__("no attempt could be counted")
        self.attempts = attempts


class Ledger:
    """The durable side of the pipeline."""

    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self.database = database
        self.blobs = blobs

    def replay(self, key: str, digest: str) -> InspectionRow | None:
        """The earlier inspection of an idempotency key; 409 if it was for something else."""
        with self.database.read() as session:
            row = inspections.by_idempotency_key(session, key)
        if row is not None and row.request_digest != digest:
            detail = "this Idempotency-Key was used for another image or other metadata; use a new key"
            raise InspectionError(409, "idempotency-conflict", detail)
        return row

    def is_known(self, key: str) -> bool:
        """Whether an inspection with this idempotency key exists."""
        with self.database.read() as session:
            return inspections.by_idempotency_key(session, key) is not None

    def accept(self, row: InspectionRow, image: Staged) -> Accepted:
        """Image, then row; when this returns both survive a power cut."""
        row.image_sha256 = image.keep()
        try:
            with self.database.write() as session:
                inspections.add(session, row)
        except IntegrityError:
            # Another request with this key was faster; anything else is a bug and raised again.
            key = row.idempotency_key
            earlier = self.replay(key, row.request_digest) if key is not None else None
            if earlier is None:
                raise
            return Accepted(earlier, replayed=True)
        return Accepted(row, replayed=False)

    def get(self, identifier: str) -> InspectionRow:
        """The row; InspectionError 404 if there is none."""
        with self.database.read() as session:
            row = inspections.get(session, identifier)
        if row is None:
            raise InspectionError(404, "unknown-inspection", f"there is no inspection {identifier[:64]!r}")
        return row

    def page(
        self,
        wanted: Filter,
        limit: int,
        after: search.Position | None = None,
        order: search.Order = "newest",
        *,
        whole: bool = False,
    ) -> search.Page:
        """A page; `whole` ones are full however long the search for them takes."""
        budget_s = None if whole else search.BUDGET_S
        with self.database.read() as session:
            return search.page(session, wanted, limit=limit, order=order, after=after, budget_s=budget_s)

    def pending(self, limit: int) -> Sequence[tuple[str, Priority]]:
        """(id, priority) of what is accepted and not finished, oldest first."""
        with self.database.read() as session:
            return inspections.pending(session, limit=limit)

    def begin(self, identifiers: Collection[str], worker: str) -> Mapping[str, InspectionRow]:
        """Count an attempt at each, whatever becomes of this process; those that have not ended, by id.

        NotBegun if that failed.
        """
        counted: dict[str, int] = {}
        try:
            with self.database.write(synced=False) as session:  # after a power cut it is queued again
                rows = inspections.begin(session, identifiers, worker)
                counted = {row.id: row.attempts for row in rows.values()}
            return rows
        except SQLAlchemyError as error:
            raise NotBegun(counted) from error

    def give_back(self, identifier: str, worker: str, attempt: int) -> None:
        """Make what `worker` began and did not get to wait again; the attempt does not count."""
        with self.database.write() as session:
            inspections.give_back(session, identifier, worker, attempt)

    def attempts(self, identifiers: Collection[str], worker: str) -> Mapping[str, int]:
        """The attempts at those of the inspections that `worker` still has."""
        with self.database.read() as session:
            return inspections.attempts(session, identifiers, worker)

    def ended(self, identifiers: Collection[str]) -> Sequence[str]:
        """Those of the inspections that have an end."""
        with self.database.read() as session:
            return inspections.ended(session, identifiers)

    def overdue(self) -> Sequence[str]:
        """Unfinished inspections whose deadline has passed."""
        with self.database.read() as session:
            return inspections.overdue(session, datetime.now(UTC))

    def thresholds(self, recipe: str, profile: str, model_hash: str, suggested: Thresholds) -> ThresholdRow:
        """The limits in force; the first version of a new recipe is the bundle's suggestion."""
        with self.database.read() as session:
            found = thresholds.newest(session, recipe, model_hash, profile)
        if found is not None:
            return found
        with self.database.write() as session:
            return thresholds.ensure(session, recipe, model_hash, profile, suggested)

    def finish(self, identifier: str, values: Mapping[str, Any]) -> InspectionRow | None:
        """Store the end of an inspection and tell whoever subscribed; None if it had an end, which stands."""
        with self.database.write() as session:
            if not inspections.finish(session, identifier, values):
                return None
            row = inspections.get(session, identifier)
            assert row is not None
            event = "inspection.finished" if row.status == "done" else "inspection.failed"
            outbox.announce(session, event, row.recipe, document(row).model_dump(mode="json"))
            return row

    def lease(self, name: str, holder: str, seconds: float) -> bool:
        """Whether `holder` is the one that does this work for the next `seconds`."""
        with self.database.write() as session:
            return leases.acquire(session, name, holder, seconds)

    def end_lease(self, name: str, holder: str) -> None:
        with self.database.write() as session:
            leases.release(session, name, holder)

    def ping(self) -> None:
        self.database.ping()


def request_digest(image_sha256: str, metadata: Metadata) -> str:
    """What makes two requests the same: image bytes and everything said about them."""
    said = json.dumps(metadata.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(bytes.fromhex(image_sha256) + said.encode()).hexdigest()


def new_row(
    image: Image,
    metadata: Metadata,
    columns: Mapping[str, Any],
    *,
    digest: str,
    key: str | None,
    image_bytes: int,
) -> InspectionRow:
    """A queued inspection, not yet stored; `columns` name model, profile, priority and deadline."""
    identifier = new_id()
    return InspectionRow(
        id=identifier,
        created_at=id_time(identifier),
        status="queued",
        latency_ms={},
        image_media_type=image.media_type,
        image_height_px=image.size[0],
        image_width_px=image.size[1],
        image_bytes=image_bytes,
        idempotency_key=key,
        request_digest=digest,
        **columns,
        **metadata.model_dump(exclude={"profile", "priority", "deadline_ms"}),
    )
