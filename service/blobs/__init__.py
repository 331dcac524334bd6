"""Content-addressed images and maps, on disk or in S3: a blob's name is the sha256 of its bytes."""

from service.blobs.base import BlobMissing, BlobStore, BlobsUnavailable, Staged, Stored
from service.blobs.disk import DiskBlobs

__all__ = ["BlobMissing", "BlobStore", "BlobsUnavailable", "DiskBlobs", "Staged", "Stored"]
