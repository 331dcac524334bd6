"""Blobs in a bucket of any S3-compatible store."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import S3Store

from service.blobs.base import BlobMissing, BlobsUnavailable, Stored, check_name
from service.errors import StartupError
from service.settings import Settings

_RETRIES = 2


class S3Blobs:
    """Blobs as objects `prefix/ab/abcd...`; a put is durable when the store has answered it."""

    def __init__(self, store: S3Store) -> None:
        self._store = store

    def put(self, data: bytes) -> str:
        """Store bytes and return their sha256; also when they are there, which makes them young again."""
        name = hashlib.sha256(data).hexdigest()
        with _translated(name):
            obstore.put(self._store, _key(name), data)
        return name

    def stage(self, data: bytes) -> "_Staged":
        """Nothing yet: an upload is all or nothing."""
        return _Staged(self, hashlib.sha256(data).hexdigest(), data)

    def get(self, name: str) -> bytes:
        """The bytes of a blob; BlobMissing if it is not stored, BlobsUnavailable if that cannot be told."""
        with _translated(name):
            return bytes(obstore.get(self._store, _key(name)).bytes())

    def stored(self) -> Iterator[Stored]:
        """All blobs, a thousand at a time."""
        with _translated(""):
            for portion in obstore.list(self._store, chunk_size=1000):
                for item in portion:
                    yield Stored(item["path"].rpartition("/")[2], item["last_modified"].timestamp())

    def remove(self, name: str, *, put_before: float) -> bool:
        """Remove a blob unless it was put at or after a time; whether it was removed.

        Few stores can make a removal conditional, so a put within the milliseconds between the look and
        the removal would be lost: of the very same bytes, long after they were last put.
        """
        try:
            with _translated(name):
                if obstore.head(self._store, _key(name))["last_modified"].timestamp() >= put_before:
                    return False
                obstore.delete(self._store, _key(name))
        except BlobMissing:
            return False
        return True

    def sweep(self, older_than_s: float = 0.0) -> int:
        """Nothing is ever half-written: an object appears when its upload has ended."""
        return 0


@dataclass
class _Staged:
    store: S3Blobs
    name: str
    data: bytes

    def keep(self) -> str:
        return self.store.put(self.data)

    def drop(self) -> None: ...


def open_s3(settings: Settings) -> S3Blobs:
    """The store that `settings.blobs` names as `s3://bucket/prefix`; StartupError if it cannot be used."""
    address = urlsplit(settings.blobs or "")
    secret = settings.s3_secret_key
    given = {
        "access_key_id": settings.s3_access_key,
        "secret_access_key": secret.get_secret_value() if secret is not None else None,
        "endpoint": settings.s3_endpoint,
        "region": settings.s3_region,
    }
    timeout = timedelta(seconds=settings.s3_timeout_s)
    store = S3Store(
        address.netloc,
        prefix=address.path.strip("/") or None,
        config={key: value for key, value in given.items() if value is not None},  # type: ignore[arg-type]
        client_options={
            "allow_http": (settings.s3_endpoint or "").startswith("http://"),
            "timeout": timeout,
            "connect_timeout": timeout / 2,
        },
        retry_config={"max_retries": _RETRIES, "retry_timeout": timeout},
    )
    try:
        next(iter(obstore.list(store, chunk_size=1)), None)
    except BaseError as error:
        reason = " ".join(str(error).split())[:300]
        raise StartupError(f"--blobs {settings.blobs} cannot be used: {reason}") from None
    return S3Blobs(store)


@contextmanager
def _translated(name: str) -> Iterator[None]:
    try:
        yield
    except (NotFoundError, FileNotFoundError):
        raise BlobMissing(name) from None
    except (BaseError, OSError) as error:
        raise BlobsUnavailable(" ".join(str(error).split())[:300]) from error


def _key(name: str) -> str:
    return f"{name[:2]}/{check_name(name)}"
