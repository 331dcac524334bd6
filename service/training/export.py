"""A recipe's training set, from the database and the blobs to a folder."""

from pathlib import Path

from models.snapshot import OperatingPoint, Query
from service.access.cli import me
from service.blobs import BlobStore
from service.db.repository import audit, training
from service.db.session import Database
from service.errors import StartupError
from service.training.select import select
from service.training.write import Progress, Source, Written, write


def export(
    database: Database,
    blobs: BlobStore,
    recipe: str,
    query: Query,
    out: Path | None = None,
    progress: Progress = lambda done, total: None,
) -> Written:
    """Select at one moment, then copy; noted in the audit log. StartupError without anything to train on.

    An image that is removed between the two is told as any other that is gone.
    """
    with database.read() as session:
        selection = select(session, recipe, query.since, query.until, query.limit)
        limits = training.limits_in_force(session, recipe)
        mask = training.mask_in_force(session, recipe)
    if not selection.inspections["train"]:
        seen = selection.inspections["all"]
        raise StartupError(
            f"recipe {recipe} has no inspection to train on from {query.since:%Y-%m-%d %H:%M} to "
            f"{query.until:%Y-%m-%d %H:%M} UTC ({seen} arrived); see --since, or the recipe's name"
        )
    point = None
    if limits is not None:
        point = OperatingPoint(
            model_hash=limits.model_hash,
            profile=limits.profile,
            version=limits.version,
            review=limits.review,
            reject=limits.reject,
        )
    written = write(Source(recipe, query, selection, point, mask, blobs), out, progress)
    if written.new:
        told = {"snapshot": written.manifest.snapshot, "images": written.manifest.images}
        with database.write() as session:
            audit.record(session, me(), "training.export", f"recipe/{recipe}", told)
    return written
