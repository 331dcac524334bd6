"""A line whose stored inspections become a training set, for tests of both sides of it."""

import hashlib
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from models.snapshot import Manifest, Query, read_reviews, verify
from service.blobs import DiskBlobs
from service.db.repository import reviews
from service.db.session import Database
from service.db.tables import RecipeRow
from service.training.export import export
from service.training.select import held_out
from tests.service.db import rows as make

DAY = 86_400
SPAN = Query(since=make.START, until=make.START + timedelta(days=30), limit=1000)


def picture(number: int, *, held: bool | None = None) -> bytes:
    """Bytes of their own; `held` picks such as would be held out once confirmed, or not."""
    salt = 0
    while True:
        data = f"picture {number} {salt}".encode()
        if held is None or held_out(hashlib.sha256(data).hexdigest()) == held:
            return data
        salt += 1


class Line:
    """A line of recipe `bolt`, an inspection every minute."""

    def __init__(self, database: Database, blobs: DiskBlobs) -> None:
        self.database, self.blobs, self._next = database, blobs, 0
        with database.write() as session:
            make.add_model(session)
            session.add(RecipeRow(name="bolt", reasons=[], created_at=make.START, updated_at=make.START))

    def inspect(self, data: bytes, said: Sequence[str] = (), *, day: int = 0, **values: Any) -> str:
        """Store an inspection and what people said of it, in order; its id."""
        self._next += 1
        row = make.row(
            day * DAY + 60 * self._next,
            **{"recipe": "bolt", "score": 1.0, "lot": f"lot{day}", "station": "s1", **values},
            image_sha256=self.blobs.put(data),
        )
        with self.database.write() as session:
            make.store(session, [row])
        for decision in said:
            with self.database.write() as session:
                found = reviews.lock(session, row.id)
                reviews.add(session, found, decision, reason="scratch", comment=None, who="ann")
        return row.id

    def export(self, out: Path, **query: Any) -> tuple[Manifest, dict[str, dict[str, str]]]:
        """The verified manifest, and the lines of reviews.csv by inspection."""
        written = export(self.database, self.blobs, "bolt", SPAN.model_copy(update=query), out)
        assert verify(written.path) == written.manifest
        return written.manifest, {line["inspection_id"]: line for line in read_reviews(written.path)}
