"""A selection as files: copied from the blobs one by one, hashed, and published whole or not at all."""

import csv
import hashlib
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC
from pathlib import Path
from typing import Any

from models.bundle import sha256_file
from models.snapshot import (
    COLUMNS,
    DAMAGED,
    MANIFEST,
    MASK,
    REMOVED,
    REVIEWS,
    USES,
    Manifest,
    OperatingPoint,
    Query,
    read_manifest,
    snapshot_hash,
)
from service.api.export import cell
from service.blobs import BlobMissing, BlobStore
from service.db.tables import MaskRow
from service.errors import StartupError
from service.training.select import Chosen, Selection

SUFFIXES = {"image/png": "png", "image/jpeg": "jpg", "image/bmp": "bmp", "image/tiff": "tif"}
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Written:
    path: Path
    manifest: Manifest
    new: bool
    """False where the very same export stood already."""


@dataclass(frozen=True)
class Source:
    """What an export is made of, and from where."""

    recipe: str
    query: Query
    selection: Selection
    operating_point: OperatingPoint | None
    mask: MaskRow | None
    blobs: BlobStore


def write(source: Source, out: Path | None, progress: Progress = lambda done, total: None) -> Written:
    """Publish the export at `out`, or in the working folder under its own name.

    A folder that is there is never changed: it is found to be the same export, or StartupError.
    """
    parent = Path.cwd() if out is None else out.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    with _workplace(parent) as work:
        manifest = _fill(work, source, progress)
        target = parent / f"{source.recipe}-{manifest.snapshot[:12]}" if out is None else out.absolute()
        if target.exists():
            return _same(target, manifest)
        work.chmod(0o755)
        work.rename(target)
    return Written(target, manifest, new=True)


def _same(target: Path, manifest: Manifest) -> Written:
    there = read_manifest(target) if (target / MANIFEST).is_file() else None
    if there is None or there.snapshot != manifest.snapshot:
        raise StartupError(f"{target} exists and holds something else; choose another --out")
    return Written(target, there, new=False)


@contextmanager
def _workplace(parent: Path) -> Iterator[Path]:
    work = Path(tempfile.mkdtemp(prefix=".training-set-", dir=parent))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)  # nothing is left there once it was published


@dataclass
class _Tally:
    files: dict[str, str] = field(default_factory=dict)
    images: Counter[str] = field(default_factory=Counter)
    inspections: Counter[str] = field(default_factory=Counter)


def _fill(work: Path, source: Source, progress: Progress) -> Manifest:
    selection, tally = source.selection, _Tally()
    tally.inspections.update(selection.inspections)
    for use in USES:
        (work / use).mkdir(parents=True)
        tally.images[use] = 0
    with (work / REVIEWS).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for done, chosen in enumerate(selection.images, start=1):
            place = _copy(work, chosen, source.blobs, tally)
            writer.writerow([cell(value) for value in _line(chosen, place)])
            progress(done, len(selection.images))
    if source.mask is not None:
        (work / MASK).write_bytes(_mask(source.mask, source.blobs))
        tally.files[MASK] = source.mask.sha256
    tally.files[REVIEWS] = sha256_file(work / REVIEWS)
    tally.images["conflicting"] = selection.conflicting
    tally.images["golden_beyond"] = selection.golden_beyond
    files = dict(sorted(tally.files.items()))
    manifest = Manifest(
        recipe=source.recipe,
        query=source.query,
        operating_point=source.operating_point,
        mask=None if source.mask is None else source.mask.version,
        inspections=dict(sorted(tally.inspections.items())),
        images=dict(sorted(tally.images.items())),
        files=files,
        snapshot=snapshot_hash(source.recipe, files, source.operating_point),
    )
    (work / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return manifest


def _copy(work: Path, chosen: Chosen, blobs: BlobStore, tally: _Tally) -> str:
    """The image's path within the export, or why there is none."""
    sha256 = chosen.entry.image_sha256
    try:
        data = blobs.get(sha256)
    except BlobMissing:
        return _without(chosen, REMOVED, tally)
    if hashlib.sha256(data).hexdigest() != sha256:
        return _without(chosen, DAMAGED, tally)
    name = f"{chosen.use}/{sha256}.{SUFFIXES.get(chosen.entry.media_type, 'webp')}"
    (work / name).write_bytes(data)
    tally.files[name] = sha256
    tally.images[chosen.use] += 1
    if chosen.use == "train" and chosen.label:
        tally.images["train_confirmed_good"] += 1
    return name


def _without(chosen: Chosen, why: str, tally: _Tally) -> str:
    tally.images[f"{chosen.use}_{why}"] += 1
    if chosen.use == "train":
        tally.inspections["train"] -= 1
        tally.inspections["same_image"] -= chosen.inspections - 1
        tally.inspections[why] += chosen.inspections
    return why


def _line(chosen: Chosen, place: str) -> tuple[Any, ...]:
    """The columns of `COLUMNS`; an image that could not be had has its reason in place of its use."""
    entry, review = chosen.entry, chosen.review
    had = place not in (REMOVED, DAMAGED)
    taken = (entry.captured_at or entry.created_at).astimezone(UTC)
    return (
        *(place if had else "", chosen.use if had else place, chosen.label, entry.id, entry.created_at),
        *(entry.verdict, entry.score, entry.review_state),
        *(("", "", "") if review is None else (review.who, review.created_at, review.reason)),
        *(entry.lot, taken.date().isoformat(), entry.station, entry.line, entry.model_hash),
        *(chosen.inspections, entry.image_sha256),
    )


def _mask(row: MaskRow, blobs: BlobStore) -> bytes:
    try:
        return blobs.get(row.sha256)
    except BlobMissing:
        raise StartupError(
            f"the image of mask version {row.version} is no longer stored; set the recipe's mask again"
        ) from None
