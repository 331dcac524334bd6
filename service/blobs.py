"""Content-addressed images and maps on disk: a blob's name is the sha256 of its bytes."""

import hashlib
import os
import re
import secrets
from pathlib import Path

_NAME = re.compile(r"[0-9a-f]{64}")


class BlobMissing(LookupError):
    """No blob of this name is stored."""


class BlobStore:
    """Blobs under `root/ab/abcd...`; what `put` returned survives a power cut."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._incoming = root / "incoming"
        self._incoming.mkdir(parents=True, exist_ok=True)
        _fsync_directory(root.parent)
        _fsync_directory(root)

    def put(self, data: bytes) -> str:
        """Store bytes and return their sha256; a reader sees the whole blob or none."""
        name = hashlib.sha256(data).hexdigest()
        path = self._path(name)
        if not path.exists():
            self._make_shard(path.parent)
            temporary = self._incoming / f"{name}.{secrets.token_hex(8)}"
            try:
                with temporary.open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.rename(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        # Also when it was there: another writer may have renamed it but not reached this line yet.
        _fsync_directory(path.parent)
        return name

    def get(self, name: str) -> bytes:
        """The bytes of a blob; BlobMissing if it is not stored."""
        try:
            return self._path(name).read_bytes()
        except FileNotFoundError:
            raise BlobMissing(name) from None

    def sweep(self) -> int:
        """Remove what writers killed half-way left behind; only while nobody writes. Returns the count."""
        left = list(self._incoming.iterdir())
        for file in left:
            file.unlink()
        return len(left)

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise BlobMissing(name)
        return self._root / name[:2] / name

    def _make_shard(self, shard: Path) -> None:
        if shard.is_dir():
            return
        shard.mkdir(exist_ok=True)
        _fsync_directory(self._root)


def _fsync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
