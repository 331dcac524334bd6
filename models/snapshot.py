"""A training set as files: what the service exports and the trainer reads.

    manifest.json      what was asked, what came of it, and the sha256 of every other file
    reviews.csv        a line per image: its inspection, what the model and people said, lot, day, station
    train/             images to train on, as they came; confirmed good ones among them
    golden/good/, golden/defective/    confirmed parts that no training sees: a candidate is examined on them
    escapes/           every missed defect: passed, and called defective by a person
    defects/           further confirmed defects of the span, left out of the training
    mask.png           where the recipe's parts are not inspected, if it has a mask

An image is a file of the very bytes that were inspected, named by their sha256; it appears once.
"""

import csv
import hashlib
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.bundle import Sha256, sha256_file

MANIFEST, REVIEWS, MASK = "manifest.json", "reviews.csv", "mask.png"
Use = Literal["train", "golden/good", "golden/defective", "escapes", "defects"]
"""What an image is for; also its folder."""
USES: tuple[Use, ...] = ("train", "golden/good", "golden/defective", "escapes", "defects")
REMOVED, DAMAGED = "removed", "damaged"
"""What `use` says of an image that was wanted and is no longer stored, or not as it was."""
COLUMNS = (
    *("image", "use", "label", "inspection_id", "created_at", "verdict", "score", "review_state"),
    *("reviewed_by", "reviewed_at", "reason", "lot", "day", "station", "line", "model_hash"),
    *("inspections", "image_sha256"),
)
"""Of `reviews.csv`. `label` is what people said of the image, in this or another inspection of it; `day` is
in UTC; `inspections` counts those of the same image."""


LEAST_GOLDEN = 20
"""Confirmed parts that a gate asks for, good and defective ones, unless it is told otherwise."""


def proves_something(good: int, defective: int, escapes: int, least: int) -> bool:
    """Whether so many confirmed parts are enough for a gate; with `least` 0 always."""
    return not least or (good + defective >= least and bool(good and (defective or escapes)))


class SnapshotError(ValueError):
    """The folder is not an export that may be used; the message says why."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Query(_Model):
    """What was asked; the span is of arrival, half-open."""

    since: datetime
    until: datetime
    limit: int = Field(ge=1, description="most images to train on")


class OperatingPoint(_Model):
    """The model that inspected the recipe when the export was made, and the limits in force."""

    model_hash: Sha256
    profile: str
    version: int = Field(ge=0, description="of the limits")
    review: float
    reject: float


class Manifest(_Model):
    """`manifest.json`."""

    kind: Literal["inlier-training-set"] = "inlier-training-set"
    schema_version: Literal[1] = 1
    recipe: str
    query: Query
    operating_point: OperatingPoint | None = None
    mask: int | None = Field(default=None, description="version of the recipe's mask; None without one")
    inspections: dict[str, Annotated[int, Field(ge=0)]] = Field(
        description="what became of the span's inspections; `all` is the sum of the others"
    )
    images: dict[str, Annotated[int, Field(ge=0)]] = Field(description="by use, and what could not be had")
    files: dict[str, Sha256]
    snapshot: Sha256 = Field(description="names the content: equal for exports that hold the same")


def snapshot_hash(recipe: str, files: Mapping[str, str], point: OperatingPoint | None) -> str:
    """sha256 over the recipe, the limits in force, and every file's name and hash."""
    head = [recipe, "" if point is None else point.model_dump_json()]
    lines = [*head, *(f"{digest}  {name}" for name, digest in sorted(files.items()))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def verify(folder: Path) -> Manifest:
    """The manifest of an export whose every file is what it was; SnapshotError says what is not."""
    manifest = read_manifest(folder)
    present = set(_files(folder))
    if present != set(manifest.files):
        missing, extra = sorted(set(manifest.files) - present), sorted(present - set(manifest.files))
        raise SnapshotError(
            f"{folder} is not as it was exported: missing {_some(missing)}, unexpected {_some(extra)}"
        )
    for name, digest in manifest.files.items():
        if sha256_file(folder / name) != digest:
            raise SnapshotError(f"{name} in {folder} does not match its sha256 in the manifest")
    if snapshot_hash(manifest.recipe, manifest.files, manifest.operating_point) != manifest.snapshot:
        raise SnapshotError(f"{folder}/{MANIFEST} does not match its own snapshot hash")
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """The manifest alone, of files that nobody has looked at."""
    path = folder / MANIFEST
    if not path.is_file():
        raise SnapshotError(
            f"{folder} holds no {MANIFEST}; name a folder that `inlier-service export-training` wrote"
        )
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise SnapshotError(f"{path} is not valid: {error}") from None


def read_reviews(folder: Path) -> Iterator[dict[str, str]]:
    """The lines of `reviews.csv` as `COLUMNS`; SnapshotError when there are others."""
    with (folder / REVIEWS).open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise SnapshotError(f"{folder / REVIEWS} has other columns than {', '.join(COLUMNS)}")
        yield from reader


def _files(folder: Path) -> Iterator[str]:
    """Every file below but the manifest, by its path within."""
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise SnapshotError(f"{name} in {folder} is not a plain file")
        if path.is_file() and name != MANIFEST:
            yield name


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3]) or "nothing"
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
