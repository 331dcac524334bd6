"""Posts the files that a camera drops into a folder: each once, also after a crash and through outages.

A file is posted when it has stopped changing. Its idempotency key is made of its name and content, so the
service recognises a repeated post: one whose answer was lost, or that a crash kept from being remembered.
"""

import logging
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from service.camera.memory import Memory
from service.client import Client, Inspection, Problem, Unavailable, content_key
from service.errors import StartupError

log = logging.getLogger(__name__)
IMAGES = ("*.png", "*.jpg", "*.jpeg", "*.bmp", "*.tif", "*.tiff", "*.webp")
STATE = ".inlier-watch.sqlite3"
BACKFILL = "backfill"  # there before the first start; to be posted behind what the camera drops
_FILES_FAULT = {400, 413, 415, 422}
_KNOWN = "idempotency-conflict"
_MOST_UNSETTLED = 10_000  # files looked at between two rounds; more wait for the next one


@dataclass(frozen=True)
class Options:
    """What to post, how, and what becomes of the files."""

    folder: Path
    patterns: tuple[str, ...] = IMAGES
    recursive: bool = False
    done: Path | None = None
    failed: Path | None = None
    settle_s: float = 1.0
    poll_s: float = 0.5
    outage_s: float = 5.0  # pause while the service cannot be reached
    metadata: dict[str, Any] = field(default_factory=dict)
    fields: re.Pattern[str] | None = None  # its named groups, found in the name, are metadata too


@dataclass(frozen=True)
class Found:
    """A file as it was seen."""

    path: Path
    name: str  # relative to the folder
    size: int
    mtime_ns: int


class Watcher:
    """Looks again and again; holds what has not settled yet, and one image, in memory."""

    def __init__(
        self, client: Client, options: Options, memory: Memory, tell: Callable[[str], None] = log.info
    ) -> None:
        self._client = client
        self._options = options
        self._memory = memory
        self._tell = tell
        self._unsettled: dict[str, tuple[int, int, float]] = {}
        self.stop = threading.Event()

    def begin(self, existing: Literal["post", "backfill", "skip"]) -> None:
        """At the first start, decide about what is there already; later starts go on where they were."""
        if not self._memory.fresh or existing == "post":
            return
        outcome = "skipped" if existing == "skip" else BACKFILL
        count = 0
        for found in self._files():
            self._memory.remember(found.name, found.size, found.mtime_ns, outcome)
            count += 1
        log.info("%d files were there before: %s", count, existing)

    def run(self) -> None:
        """Until `stop` is set."""
        while not self.stop.is_set():
            started = time.monotonic()
            self.round()
            # A folder of a hundred thousand files takes a while to look through; do not do only that.
            self.stop.wait(max(self._options.poll_s, time.monotonic() - started))

    def round(self) -> int:
        """Post every file that has settled; how many."""
        posted, now = 0, time.monotonic()
        unsettled: dict[str, tuple[int, int, float]] = {}
        for found in self._files():
            if self.stop.is_set():
                break
            outcome = self._memory.outcome(found.name, found.size, found.mtime_ns)
            if outcome not in (None, BACKFILL):
                continue
            size, mtime_ns, since = self._unsettled.get(found.name, (-1, -1, now))
            if (size, mtime_ns) != (found.size, found.mtime_ns):
                since = now
            if found.size == 0 or now - since < self._options.settle_s or since == now:
                if len(unsettled) < _MOST_UNSETTLED:
                    unsettled[found.name] = (found.size, found.mtime_ns, since)
                continue
            posted += self._deal_with(found, backfill=outcome == BACKFILL)
        self._unsettled = unsettled
        return posted

    def _files(self) -> Iterator[Found]:
        options = self._options
        hidden = {options.done, options.failed}
        for folder, folders, names in os.walk(options.folder):
            here = Path(folder)
            folders[:] = [
                name
                for name in folders
                if options.recursive and name[0] != "." and (here / name).resolve() not in hidden
            ]
            for name in names:
                if name[0] == "." or not any(fnmatchcase(name.lower(), one) for one in options.patterns):
                    continue
                path = here / name
                try:
                    said = path.stat()
                except OSError:  # renamed or removed since it was listed
                    continue
                yield Found(path, path.relative_to(options.folder).as_posix(), said.st_size, said.st_mtime_ns)

    def _deal_with(self, found: Found, backfill: bool) -> bool:
        """Post, then move or remember; False for a file that is not ready after all."""
        try:
            data = found.path.read_bytes()
            said = found.path.stat()
        except OSError as error:
            log.warning("%s cannot be read yet: %s", found.name, error.strerror)
            return False
        if (said.st_size, said.st_mtime_ns) != (found.size, found.mtime_ns) or len(data) != found.size:
            return False
        try:
            answer = self._post(found, data, {"priority": BACKFILL} if backfill else {})
        except Problem as problem:
            if problem.code == _KNOWN:
                self._tell(f"{found.name}: posted before")
                self._put_away(found, "posted", self._options.done)
                return True
            if problem.status not in _FILES_FAULT:
                raise StartupError(f"the service refuses what is posted: {problem}") from None
            self._tell(f"{found.name}: refused: {problem}")
            self._put_away(found, "refused", self._options.failed)
            return True
        if answer is None:
            return False
        again = " (posted before)" if answer.replayed else ""
        self._tell(f"{found.name}: {answer.id} {answer.verdict or answer.status}{again}")
        self._put_away(found, "posted", self._options.done)
        return True

    def _post(self, found: Found, data: bytes, more: dict[str, Any]) -> Inspection | None:
        """Through outages; None when stopped meanwhile."""
        said = {**self._said(found), **more}
        key = content_key(data, found.name)
        quiet = False
        while not self.stop.is_set():
            try:
                return self._client.inspect(data, idempotency_key=key, **said)
            except Unavailable as error:
                if not quiet:
                    log.warning("waiting for the service: %s", error)
                quiet = True
                self.stop.wait(self._options.outage_s)
        return None

    def _said(self, found: Found) -> dict[str, Any]:
        """Metadata; the same for the same file, however often it is posted."""
        groups = self._options.fields.search(found.name) if self._options.fields else None
        from_name = {k: v for k, v in groups.groupdict().items() if v} if groups else {}
        captured = datetime.fromtimestamp(found.mtime_ns / 1e9, UTC)
        return {
            "captured_at": captured,
            **self._options.metadata,
            **from_name,
            "attributes": {"file": found.name[-1024:]},
        }

    def _put_away(self, found: Found, outcome: Literal["posted", "refused"], folder: Path | None) -> None:
        if folder is None:
            self._memory.remember(found.name, found.size, found.mtime_ns, outcome)
            return
        self._memory.forget(found.name)
        target = _free(folder / found.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.move(found.path, target)
        except OSError as error:
            # It stays where it is, and must not be posted for ever.
            log.error("%s cannot be moved to %s: %s", found.name, folder, error.strerror)
            self._memory.remember(found.name, found.size, found.mtime_ns, outcome)


def _free(path: Path) -> Path:
    """The path, or one beside it that nothing has: earlier files are never replaced."""
    number, found = 1, path
    while found.exists():
        number += 1
        found = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return found
