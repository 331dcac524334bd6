"""The training images of a bundle as people look through them: rank, picture, and the mark that stands.

Everything here blocks and is called in a thread.
"""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from service import bundles
from service.access.principal import Principal
from service.api.export import cell
from service.bundles import Suspect
from service.db.repository import audit, marks, model_life
from service.db.session import Database
from service.db.tables import ModelRow, TrainingMarkRow
from service.errors import InspectionError

COLUMNS = ("image", "mark", "sha256", "rank", "score", "who", "marked_at")
_PAGE = 1000


@dataclass(frozen=True)
class Sheet:
    """Some of the ranked images, and what is known of them all."""

    model: ModelRow
    suspects: Sequence[Suspect]
    total: int
    pictures: int  # the first so many ranks have one
    marks: Mapping[int, TrainingMarkRow]  # by rank
    counts: Mapping[str, int]


class TrainingAudit:
    """The training images of all bundles of a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def sheet(self, model_hash: str, *, offset: int, limit: int) -> Sheet:
        """The images from rank `offset` + 1 on; 404 without the model or its files."""
        with self._database.read() as session:
            row = model_life.need(session, model_hash)
            marked = marks.page(session, model_hash, after=offset, limit=limit)
            counts = marks.counts(session, model_hash)
        ranked = bundles.audit(row)
        return Sheet(
            row,
            ranked[offset : offset + limit],
            len(ranked),
            len(bundles.thumbnails(row)),
            {mark.rank: mark for mark in marked},
            counts,
        )

    def mark(
        self, who: Principal, model_hash: str, image: str, mark: str | None
    ) -> tuple[Suspect, TrainingMarkRow | None]:
        """Mark a training image as `defective` or `fine`, or take its mark away; 404 for an unknown one."""
        with self._database.read() as session:
            model = model_life.need(session, model_hash)
        found = next((each for each in bundles.audit(model) if each.image == image), None)
        if found is None:
            detail = f"model {model_hash[:12]} has no training image {image[:200]!r}; its audit lists all"
            raise InspectionError(404, "unknown-training-image", detail)
        named = TrainingMarkRow(
            model_hash=model_hash,
            rank=found.rank,
            image=found.image,
            sha256=found.sha256,
            score=found.score,
        )
        with self._database.write() as session:
            before = marks.get(session, model_hash, found.rank)
            if mark is None and before is None:
                return found, None
            told = {"image": image, "rank": found.rank, "before": None if before is None else before.mark}
            row = marks.put(session, named, mark, who.name)
            audit.record(session, who, f"marks.{mark or 'withdrawn'}", f"model/{model_hash}", told)
        return found, row

    def picture(self, model_hash: str, rank: int) -> bytes:
        """A training image, small, as WebP; 404 where there is none."""
        with self._database.read() as session:
            row = model_life.need(session, model_hash)
        found = bundles.thumbnails(row)
        if not 1 <= rank <= len(found):
            had = (
                f"only the first {len(found)} have one" if found else "this bundle was made without pictures"
            )
            detail = f"training image {rank} of model {model_hash[:12]} has no picture; {had}"
            raise InspectionError(404, "no-picture", detail)
        return found[rank - 1]

    def marks(
        self, model_hash: str, *, after: int, limit: int
    ) -> tuple[Sequence[TrainingMarkRow], Mapping[str, int]]:
        """Marks by rank, and how many there are of each kind."""
        with self._database.read() as session:
            model_life.need(session, model_hash)
            return (
                marks.page(session, model_hash, after=after, limit=limit),
                marks.counts(session, model_hash),
            )

    def export(self, model_hash: str) -> Iterator[bytes]:
        """All marks as CSV, as `inlier-trainer fit --marks` reads it; 404 before the first line."""
        rows, _ = self.marks(model_hash, after=0, limit=_PAGE)
        return self._lines(model_hash, rows)

    def _lines(self, model_hash: str, rows: Sequence[TrainingMarkRow]) -> Iterator[bytes]:
        yield _csv([COLUMNS])
        while rows:
            yield _csv([[cell(getattr(row, name)) for name in COLUMNS] for row in rows])
            rows, _ = self.marks(model_hash, after=rows[-1].rank, limit=_PAGE)


def _csv(rows: Sequence[Sequence[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()
