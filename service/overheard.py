"""What the codec libraries write to standard error while they decode: they tell some damage nowhere else.

libjpeg paints what is missing gray, libtiff's LZW decoder goes on with what it has; OpenCV returns both as a
picture. Only a process that does nothing else may listen: the descriptor belongs to the whole process.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_FULL_BYTES = 1 << 16  # of a pipe
_DAMAGE = re.compile(
    rb"TIFF_Error (?P<tiff>[^\r\n]{1,120})"
    # Some cameras pad their segments, which harms nothing.
    rb"|Corrupt JPEG data: (?P<jpeg>(?!\d+ extraneous bytes)[^\r\n]{1,120})"
)


class Overheard:
    """Collects what is written within `listening`; a pipe, so a chatty file cannot fill memory or a log."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        for end in (self._read, self._write):
            os.set_blocking(end, False)
        self._said = b""

    @contextmanager
    def listening(self) -> Iterator[None]:
        kept = os.dup(2)
        os.dup2(self._write, 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            self._said = b""
            with suppress(BlockingIOError):
                while len(self._said) < _FULL_BYTES and (more := os.read(self._read, _FULL_BYTES)):
                    self._said += more

    @property
    def overflowed(self) -> bool:
        """What came later is lost, and the library's stream may have given up: listen with a new process."""
        return len(self._said) > _FULL_BYTES - 4096

    def damage(self) -> str | None:
        """What is wrong with the file, in the library's words; None if it said nothing of the kind."""
        found = _DAMAGE.search(self._said)
        if found is None:
            return None
        text = (found["tiff"] or found["jpeg"]).decode("ascii", "replace")
        return "".join(char if char.isprintable() else "?" for char in text)
