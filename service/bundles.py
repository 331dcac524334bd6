"""Bundles that are to be registered, and the files of those that are: nothing in them is ever run here."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from safetensors import SafetensorError, safe_open
from safetensors.numpy import load

from models.bundle import THUMBNAILS_FILE, Bundle, BundleError, sha256_file
from service.db.tables import ModelRow
from service.errors import InspectionError, StartupError
from service.signatures import load_trusted

_PICKLE = b"\x80"  # the first byte of every pickle since protocol 2
_ZIP = b"PK"  # torch's own format is a zip with a pickle in it


def locate(folder: Path | None, path: str) -> Path:
    """The directory of a bundle below the configured folder; InspectionError 422 for any other place."""
    if folder is None:
        detail = "no folder of bundles is configured; set --bundles (INLIER_BUNDLES) and put the bundle there"
        raise InspectionError(422, "bundles-not-configured", detail)
    parts = PurePosixPath(path).parts
    if "\\" in path or "\0" in path or PurePosixPath(path).is_absolute() or not parts or ".." in parts:
        raise refused(f"{path[:200]!r} must be a relative path below the folder of bundles, without '..'")
    found = folder.resolve()
    for part in parts:
        found = found / part
        if _is(found.is_symlink):
            raise refused(f"{part[:200]!r} in {path[:200]!r} is a symbolic link")
    if not _is(found.is_dir):
        raise refused(f"there is no directory {path[:200]!r} in the folder of bundles")
    return found


def _is(asked: Callable[[], bool]) -> bool:
    try:
        return asked()
    except (OSError, ValueError):  # a name that no file can have
        return False


def examine(path: Path, trusted_keys: Path | None = None) -> Bundle:
    """The bundle in a directory: signature, the hash and format of every file; InspectionError 422."""
    try:
        bundle = load_trusted(path, trusted_keys)
        for name in bundle.manifest.files:
            _check_format(bundle.file(name))
    except (BundleError, StartupError, OSError, SafetensorError) as error:
        raise refused(" ".join(str(error).split())[:1000]) from None
    return bundle


def refused(reason: str) -> InspectionError:
    return InspectionError(422, "invalid-bundle", f"the bundle is refused: {reason}")


def _check_format(file: Path) -> None:
    if file.suffix == ".safetensors":
        with safe_open(file, "numpy"):
            return
    with file.open("rb") as opened:
        start = opened.read(2)
    if start[:1] == _PICKLE or start == _ZIP:
        raise BundleError(f"{file.name} holds a pickle or an archive")


def read_file(row: ModelRow, name: str) -> bytes:
    """A file of a registered bundle, as it was registered; InspectionError 404 when it is gone or changed."""
    expected = (row.manifest or {}).get("files", {}).get(name)
    try:
        if not row.path or expected is None:
            raise OSError
        return _verified(Path(row.path) / name, expected)
    except OSError:
        raise _gone(row, name) from None


def _verified(file: Path, expected: str) -> bytes:
    """OSError when the file is another than it was."""
    if file.is_symlink() or sha256_file(file) != expected:
        raise OSError
    return file.read_bytes()


def _gone(row: ModelRow, name: str) -> InspectionError:
    detail = f"{name} of model {row.hash[:12]} is not where the bundle was registered, or was changed"
    return InspectionError(404, "bundle-file-missing", detail)


@dataclass(frozen=True)
class Suspect:
    """A training image in the order of suspicion."""

    rank: int  # from 1
    image: str  # its name
    score: float  # calibrated
    sha256: str | None  # of the file, in bundles that say so


def audit(row: ModelRow) -> list[Suspect]:
    """`audit.csv`: training images, the most suspicious first."""
    found = csv.DictReader(io.StringIO(read_file(row, "audit.csv").decode("utf-8")))
    return [
        Suspect(int(each["rank"]), each["image"], float(each["calibrated_score"]), each.get("sha256") or None)
        for each in found
    ]


def thumbnails(row: ModelRow) -> Sequence[bytes]:
    """The pictures of the first training images, WebP; none in bundles from before there were any."""
    expected = (row.manifest or {}).get("files", {}).get(THUMBNAILS_FILE)
    if expected is None:
        return ()
    try:
        return _pictures(Path(row.path) / THUMBNAILS_FILE, expected)
    except (OSError, SafetensorError, KeyError):
        raise _gone(row, THUMBNAILS_FILE) from None


@lru_cache(maxsize=4)  # a sheet asks for two hundred, one by one
def _pictures(file: Path, expected: str) -> Sequence[bytes]:
    found = load(_verified(file, expected))
    return [found[str(rank)].tobytes() for rank in range(1, len(found) + 1)]
