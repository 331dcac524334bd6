"""What a store of blobs does, and what can go wrong with one."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

_NAME = re.compile(r"[0-9a-f]{64}")


class BlobMissing(LookupError):
    """No blob of this name is stored."""


class BlobsUnavailable(RuntimeError):
    """The store does not answer, or not in time; it may do so later."""


@dataclass(frozen=True)
class Stored:
    """A blob and when it was last put, in seconds since 1970 by the store's own clock."""

    name: str
    put_at: float


class Staged(Protocol):
    """Bytes on their way into a store."""

    name: str

    def keep(self) -> str:
        """Make them a blob, as `put` does."""

    def drop(self) -> None:
        """Forget them, unless they were kept; again is no error."""


class BlobStore(Protocol):
    """Blobs by the sha256 of their bytes; everything here blocks."""

    def put(self, data: bytes) -> str:
        """Store bytes durably and return their sha256; a reader sees the whole blob or none.

        A blob that is there already counts as put now, so that `remove` leaves it alone.
        """

    def stage(self, data: bytes) -> Staged:
        """Do what of `put` takes long, while it is not known yet whether the bytes are wanted."""

    def get(self, name: str) -> bytes:
        """The bytes of a blob; BlobMissing if it is not stored, BlobsUnavailable if that cannot be told."""

    def stored(self) -> Iterator[Stored]:
        """All blobs, in no order; those that come and go meanwhile may be among them."""

    def remove(self, name: str, *, put_before: float) -> bool:
        """Remove a blob unless it was put at or after a time; whether it was removed."""

    def sweep(self, older_than_s: float = 0.0) -> int:
        """Remove what writers killed half-way left behind; with 0 only while nobody writes. The count."""


def check_name(name: str) -> str:
    """The name, if it can be one; else BlobMissing: there is no such blob, and no such path is tried."""
    if not _NAME.fullmatch(name):
        raise BlobMissing(name)
    return name
