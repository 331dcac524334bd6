"""The lock on the data folder: one service's alone, or shared by processes that share a queue."""

import fcntl
import os
import time
from pathlib import Path

from service.errors import StartupError

_PATIENCE_S = 10.0  # while another process starts and tidies up
_PAUSE_S = 0.1


class DataFolder:
    """Held until `close`; StartupError when the folder cannot be written or is another's."""

    def __init__(self, folder: Path, *, shared: bool) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StartupError(
                f"the data folder {folder} cannot be written ({error.strerror}); see --data"
            ) from None
        self.alone = self._try(fcntl.LOCK_EX)
        """Nobody else uses the folder: what was left half-written may be removed."""
        until = time.monotonic() + _PATIENCE_S
        while not self.alone and not (shared and self._try(fcntl.LOCK_SH)):
            # Two services that do not share a queue would both run what was left.
            if not shared or time.monotonic() > until:
                self.close()
                raise StartupError(f"another inlier-service uses the data folder {folder}; see --data")
            time.sleep(_PAUSE_S)

    def share(self) -> None:
        """Let others of the same queue in."""
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)
        self.alone = False

    def close(self) -> None:
        os.close(self._descriptor)

    def _try(self, kind: int) -> bool:
        try:
            fcntl.flock(self._descriptor, kind | fcntl.LOCK_NB)
        except OSError:
            return False
        return True
