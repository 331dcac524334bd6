"""The store of blobs that the settings name."""

from pathlib import Path

from service.blobs.base import BlobStore
from service.blobs.disk import DiskBlobs
from service.errors import StartupError
from service.settings import Settings

_HALF_WRITTEN_S = 3600.0  # nobody writes one blob for so long


def open_blobs(settings: Settings, *, alone: bool) -> BlobStore:
    """Where images and maps are; `alone`: nobody else writes there, so what was left can be removed."""
    if (settings.blobs or "").startswith("s3://"):
        from service.blobs.s3 import open_s3  # its client is loaded only where it is used

        return open_s3(settings)
    if "://" in (settings.blobs or ""):
        raise StartupError(f"--blobs {settings.blobs} is neither a folder nor s3://bucket/prefix")
    folder = settings.data / "blobs" if settings.blobs is None else Path(settings.blobs)
    try:
        blobs = DiskBlobs(folder)
        # A folder outside the locked one may have other writers.
        blobs.sweep(0.0 if alone and settings.blobs is None else _HALF_WRITTEN_S)
    except OSError as error:
        hint = "--data" if settings.blobs is None else "--blobs"
        raise StartupError(f"{folder} cannot be used ({error.strerror}); see {hint}") from None
    return blobs
