"""What people said of training images, for the training that follows."""

import csv
from pathlib import Path

from models.snapshot import read_manifest
from service.api.export import cell
from service.db.repository import marks
from service.db.session import Database
from service.training_audit import COLUMNS


def write_marks(database: Database, export: Path, out: Path) -> int:
    """Write the marks on images of `export/train` to `out`, for `inlier-trainer --marks` -> how many.

    Of all models, because an image that was left out once is in no later audit; the last mark of an image
    stands. Without one there is no file. Marks that name no sha256 are of older bundles, and not taken.
    """
    files = read_manifest(export).files
    wanted = {digest for name, digest in files.items() if name.startswith("train/")}
    with database.read() as session:
        last = {row.sha256: row for row in marks.with_hash(session) if row.sha256 in wanted}
    if last:
        with out.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows([cell(getattr(row, name)) for name in COLUMNS] for row in last.values())
    return len(last)
