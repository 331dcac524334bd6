"""What became of files, kept in a small file beside them so that a crash does not forget it."""

import sqlite3
from pathlib import Path
from types import TracebackType
from typing import Self

_TABLE = """
CREATE TABLE IF NOT EXISTS files (
  name TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, outcome TEXT NOT NULL
) WITHOUT ROWID
"""


class Memory:
    """Files that were dealt with, by name, size and time of change: a file written anew is a new one."""

    def __init__(self, path: Path) -> None:
        self.fresh = not path.exists()
        self._database = sqlite3.connect(path, isolation_level=None, timeout=10, check_same_thread=False)
        # A record lost with the power costs a repeated post, which the service recognises.
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = NORMAL")
        self._database.execute(_TABLE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    def outcome(self, name: str, size: int, mtime_ns: int) -> str | None:
        """What became of this very version of the file."""
        query = "SELECT outcome FROM files WHERE name = ? AND size = ? AND mtime_ns = ?"
        found = self._database.execute(query, (name, size, mtime_ns)).fetchone()
        return None if found is None else str(found[0])

    def remember(self, name: str, size: int, mtime_ns: int, outcome: str) -> None:
        values = (name, size, mtime_ns, outcome)
        self._database.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", values)

    def forget(self, name: str) -> None:
        """The file is gone; a camera may use its name again."""
        self._database.execute("DELETE FROM files WHERE name = ?", (name,))
