"""A folder of backups: a snapshot each of the database, and blobs that they share.

    blobs/ab/abcd...                      every blob that a snapshot names, once
    snapshots/20260301T013000Z/
        snapshot.json                     what is in it
        database                          as SQLite or pg_dump wrote it
        blobs.txt                         the names of its blobs

The database comes first and its blobs after it: a blob is stored before a row names it, so what the copy of
the database names was there, unless pruning removed it meanwhile.
"""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from service.backup import database
from service.backup.database import Kind
from service.blobs import BlobMissing, BlobStore, DiskBlobs
from service.errors import StartupError
from service.version import installed_version

Progress = Callable[[Iterable[str], int], Iterable[str]]
"""Shows how far one has come through names of which there are so many."""


class Snapshot(BaseModel):
    """`snapshot.json`."""

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    name: str
    taken_at: datetime
    program: str  # version that took it
    kind: Kind
    tables: str | None  # their version
    sha256: str  # of `database`
    inspections: int
    blobs: int
    missing: list[str]  # named by the database, and not stored any more
    bundles: list[str]  # folders of models, to be kept by whoever made them


class Backups:
    """The folder; one process at a time writes to it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._snapshots = folder / "snapshots"

    def take(self, url: str, blobs: BlobStore, progress: Progress) -> Snapshot:
        """A new snapshot, beside a service that runs; blobs that an earlier one has are not copied again."""
        now = datetime.now(UTC)
        name = now.strftime("%Y%m%dT%H%M%SZ")
        with self._alone():
            partly = self._snapshots / f"{name}.partly"
            shutil.rmtree(partly, ignore_errors=True)
            partly.mkdir(parents=True)
            contents = database.take(url, partly / "database", partly / "blobs.txt")
            names = (partly / "blobs.txt").read_text().split()
            missing = self._copy(blobs, progress(names, len(names)))
            snapshot = Snapshot(
                name=name,
                taken_at=now,
                program=installed_version(),
                kind=contents.kind,
                tables=contents.tables,
                sha256=_digest(partly / "database"),
                inspections=contents.inspections,
                blobs=len(names),
                missing=missing,
                bundles=contents.bundles,
            )
            (partly / "snapshot.json").write_text(snapshot.model_dump_json(indent=1) + "\n")
            _sync(partly)
            partly.rename(self._snapshots / name)
            _sync(self._snapshots)
        return snapshot

    def listed(self) -> list[Snapshot]:
        """Whole snapshots, oldest first."""
        return [self._read(path.parent) for path in sorted(self._snapshots.glob("*Z/snapshot.json"))]

    def keep(self, newest: int) -> int:
        """Remove all but the newest snapshots, and the blobs that only those had; how many snapshots."""
        with self._alone():
            old = [snapshot.name for snapshot in self.listed()[:-newest]]
            for name in old:
                shutil.rmtree(self._snapshots / name)
            if old:
                kept = {
                    bytes.fromhex(name)
                    for path in self._snapshots.glob("*Z/blobs.txt")
                    for name in path.read_text().split()
                }
                store = DiskBlobs(self._folder / "blobs")
                for blob in store.stored():
                    if bytes.fromhex(blob.name) not in kept:
                        store.remove(blob.name, put_before=float("inf"))
        return len(old)

    def find(self, name: str | None) -> Snapshot:
        """A snapshot, by default the newest; StartupError when there is none of this name."""
        known = self.listed()
        if not known:
            raise StartupError(f"{self._folder} holds no backup")
        if name is None:
            return known[-1]
        for snapshot in known:
            if snapshot.name == name:
                return snapshot
        names = ", ".join(one.name for one in known[-5:])
        raise StartupError(f"there is no snapshot {name}; the newest are {names}")

    def restore(self, snapshot: Snapshot, url: str, blobs: BlobStore, progress: Progress) -> list[str]:
        """Put a snapshot back, the database last; names of blobs that are damaged or not there."""
        folder = self._snapshots / snapshot.name
        if _digest(folder / "database") != snapshot.sha256:
            raise StartupError(f"{folder / 'database'} is not what was backed up; take another snapshot")
        database.check_empty(url, snapshot.kind)
        store, lost = DiskBlobs(self._folder / "blobs"), []
        for name in progress((folder / "blobs.txt").read_text().split(), snapshot.blobs):
            try:
                data = store.get(name)
            except BlobMissing:
                lost.append(name)
                continue
            if hashlib.sha256(data).hexdigest() != name:
                lost.append(name)
                continue
            blobs.put(data)
        database.put_back(url, folder / "database", snapshot.kind)
        return lost

    def _copy(self, blobs: BlobStore, names: Iterable[str]) -> list[str]:
        store, missing = DiskBlobs(self._folder / "blobs"), []
        for name in names:
            if store.has(name):
                continue
            try:
                store.put(blobs.get(name))
            except BlobMissing:
                missing.append(name)
        return missing

    def _read(self, folder: Path) -> Snapshot:
        try:
            return Snapshot.model_validate_json((folder / "snapshot.json").read_text())
        except (OSError, ValidationError) as error:
            reason = " ".join(str(error).split())[:200]
            raise StartupError(f"{folder / 'snapshot.json'} cannot be read: {reason}") from None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            self._snapshots.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StartupError(f"{self._folder} cannot be written ({error.strerror})") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise StartupError(f"another backup is writing to {self._folder}") from None
        finally:
            os.close(descriptor)


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _sync(folder: Path) -> None:
    """Files of a folder and the folder itself survive a power cut."""
    for path in [*(one for one in folder.iterdir() if one.is_file()), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
