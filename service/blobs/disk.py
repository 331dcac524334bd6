"""Blobs in a folder, which may be shared by several processes."""

import fcntl
import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from service.blobs.base import BlobMissing, Stored, check_name


class DiskBlobs:
    """Blobs under `root/ab/abcd...`; what `put` returned survives a power cut."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._incoming = root / "incoming"
        self._incoming.mkdir(parents=True, exist_ok=True)
        _fsync_directory(root.parent)
        _fsync_directory(root)

    def put(self, data: bytes) -> str:
        """Store bytes and return their sha256; a reader sees the whole blob or none."""
        staged = self.stage(data)
        try:
            return staged.keep()
        finally:
            staged.drop()

    def stage(self, data: bytes) -> "_Staged":
        """The bytes in a file of their own, durably, unless there is such a blob."""
        name = hashlib.sha256(data).hexdigest()
        staged = _Staged(self, name, data)
        if not self.has(name):
            staged.file = self._written(name, data)
        return staged

    def keep(self, staged: "_Staged") -> str:
        path = self._path(staged.name)
        if not self._renew(path):
            self._make_shard(path.parent)
            file = staged.file
            if file is None or not file.exists():  # the blob was there and was removed, or the file was swept
                file = self._written(staged.name, staged.data)
            file.rename(path)
            staged.file = None
        # Also when it was there: another writer may have renamed it but not reached this line yet.
        _fsync_directory(path.parent)
        return staged.name

    def _written(self, name: str, data: bytes) -> Path:
        temporary = self._incoming / f"{name}.{secrets.token_hex(8)}"
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return temporary

    def get(self, name: str) -> bytes:
        """The bytes of a blob; BlobMissing if it is not stored."""
        try:
            return self._path(name).read_bytes()
        except FileNotFoundError:
            raise BlobMissing(name) from None

    def has(self, name: str) -> bool:
        return self._path(name).is_file()

    def stored(self) -> Iterator[Stored]:
        """All blobs, shard by shard."""
        for shard in self._root.glob("[0-9a-f][0-9a-f]"):
            with os.scandir(shard) as entries:
                for entry in entries:
                    with suppress(FileNotFoundError):  # removed since it was listed
                        yield Stored(entry.name, entry.stat().st_mtime)

    def remove(self, name: str, *, put_before: float) -> bool:
        """Remove a blob unless it was put at or after a time; whether it was removed."""
        path = self._path(name)
        with self._lock(fcntl.LOCK_EX), suppress(FileNotFoundError):
            if path.stat().st_mtime < put_before:
                path.unlink()
                return True
        return False

    def sweep(self, older_than_s: float = 0.0) -> int:
        """Remove what writers killed half-way left behind; with 0 only while nobody writes. The count."""
        removed, until = 0, time.time() - older_than_s
        for file in self._incoming.iterdir():
            with suppress(FileNotFoundError):  # its writer was alive
                if not older_than_s or file.stat().st_mtime < until:
                    file.unlink()
                    removed += 1
        return removed

    def _renew(self, path: Path) -> bool:
        """Make a blob as young as if it was put now; False if it is not there."""
        # Under a lock against `remove`: between its look at the time and its removal, nothing comes.
        with self._lock(fcntl.LOCK_SH), suppress(FileNotFoundError):
            os.utime(path)
            return True
        return False

    @contextmanager
    def _lock(self, kind: int) -> Iterator[None]:
        descriptor = os.open(self._root / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, kind)
            yield
        finally:
            os.close(descriptor)

    def _path(self, name: str) -> Path:
        return self._root / name[:2] / check_name(name)

    def _make_shard(self, shard: Path) -> None:
        if shard.is_dir():
            return
        shard.mkdir(exist_ok=True)
        _fsync_directory(self._root)


@dataclass
class _Staged:
    store: DiskBlobs
    name: str
    data: bytes
    file: Path | None = None  # what there is to rename or to remove

    def keep(self) -> str:
        return self.store.keep(self)

    def drop(self) -> None:
        if self.file is not None:
            self.file.unlink(missing_ok=True)
            self.file = None


def _fsync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
