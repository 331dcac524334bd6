"""Rows and blobs together: each method is one step of an inspection's life and at most one transaction.

Everything here blocks and is called in a thread.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.exc import IntegrityError

from models.decode import Image
from models.engine import Engine
from service.api.schemas import document
from service.blobs import BlobStore
from service.db.repository import inspections, models, outbox, search, thresholds
from service.db.session import Database
from service.db.tables import InspectionRow, ThresholdRow
from service.errors import InspectionError
from service.ids import id_time, new_id
from service.metadata import Metadata


@dataclass(frozen=True)
class Accepted:
    """A durable row; `replayed` if an earlier request with the same idempotency key made it."""

    row: InspectionRow
    replayed: bool


class Ledger:
    """The durable side of the pipeline, for one serving model."""

    def __init__(self, database: Database, blobs: BlobStore, engine: Engine) -> None:
        self._database = database
        self.blobs = blobs
        self._engine = engine

    def register_model(self, path: str) -> None:
        """Note the serving model, and the bundle's suggested limits for the default recipe."""
        manifest, model_hash = self._engine.manifest, self._engine.model_hash
        with self._database.write() as session:
            models.register(session, manifest, model_hash, path)
            for profile, calibration in manifest.calibration.items():
                thresholds.ensure(session, "default", model_hash, profile, calibration.suggested)

    def replay(self, key: str, digest: str) -> InspectionRow | None:
        """The earlier inspection of an idempotency key; 409 if it was for something else."""
        with self._database.read() as session:
            row = inspections.by_idempotency_key(session, key)
        if row is not None and row.request_digest != digest:
            detail = "this Idempotency-Key was used for another image or other metadata; use a new key"
            raise InspectionError(409, "idempotency-conflict", detail)
        return row

    def accept(self, row: InspectionRow, data: bytes) -> Accepted:
        """Image, then row; when this returns both survive a power cut."""
        row.image_sha256 = self.blobs.put(data)
        for name, value in self._model(row.profile).items():
            setattr(row, name, value)
        try:
            with self._database.write() as session:
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
        with self._database.read() as session:
            row = inspections.get(session, identifier)
        if row is None:
            raise InspectionError(404, "unknown-inspection", f"there is no inspection {identifier[:64]!r}")
        return row

    def page(
        self,
        wanted: search.Filter,
        limit: int,
        after: search.Position | None = None,
        order: search.Order = "newest",
        *,
        whole: bool = False,
    ) -> search.Page:
        """A page; `whole` ones are full however long the search for them takes."""
        budget_s = None if whole else search.BUDGET_S
        with self._database.read() as session:
            return search.page(session, wanted, limit=limit, order=order, after=after, budget_s=budget_s)

    def newest_id(self) -> str | None:
        with self._database.read() as session:
            return inspections.newest_id(session)

    def pending(self, after: str, until: str) -> Sequence[InspectionRow]:
        """Unfinished inspections with `after` < id <= `until`, oldest first; in portions."""
        with self._database.read() as session:
            return inspections.pending(session, after=after, until=until)

    def start(self, identifiers: Collection[str]) -> None:
        with self._database.write() as session:
            inspections.start(session, identifiers)

    def thresholds(self, recipe: str, profile: str) -> ThresholdRow:
        """The limits in force; the first version of a new recipe is the bundle's suggestion."""
        model_hash = self._engine.model_hash
        with self._database.read() as session:
            found = thresholds.newest(session, recipe, model_hash, profile)
        if found is not None:
            return found
        suggested = self._engine.manifest.calibration[profile].suggested
        with self._database.write() as session:
            return thresholds.ensure(session, recipe, model_hash, profile, suggested)

    def finish(self, row: InspectionRow, values: Mapping[str, Any]) -> bool:
        """Store the end of an inspection and tell who subscribed; False if it had an end, which stands."""
        with self._database.write() as session:
            if not inspections.finish(session, row.id, {**self._model(row.profile), **values}):
                return False
            ended = inspections.get(session, row.id)
            assert ended is not None
            event = "inspection.finished" if ended.status == "done" else "inspection.failed"
            outbox.announce(session, event, ended.recipe, document(ended).model_dump(mode="json"))
            return True

    def ping(self) -> None:
        self._database.ping()

    def _model(self, profile: str) -> dict[str, str]:
        manifest = self._engine.manifest
        return {
            "model_hash": self._engine.model_hash,
            "model_name": manifest.name,
            "model_version": manifest.version,
            "profile": profile,
        }


def request_digest(data: bytes, metadata: Metadata) -> str:
    """What makes two requests the same: image bytes and everything said about them."""
    said = json.dumps(metadata.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(hashlib.sha256(data).digest() + said.encode()).hexdigest()


def new_row(image: Image, metadata: Metadata, profile: str, digest: str, key: str | None) -> InspectionRow:
    """A queued inspection, not yet stored."""
    identifier = new_id()
    return InspectionRow(
        id=identifier,
        created_at=id_time(identifier),
        status="queued",
        profile=profile,
        latency_ms={},
        image_media_type=image.media_type,
        image_height_px=image.size[0],
        image_width_px=image.size[1],
        idempotency_key=key,
        request_digest=digest,
        **metadata.model_dump(exclude={"profile"}),
    )
