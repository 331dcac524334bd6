"""What people said of training images: a CSV of marks, as the service's audit page gives it.

    image,mark,sha256
    line-a/017.png,defective,9f86d0...
    line-a/023.png,fine,60303a...

Files are known by their content. Rows without `sha256` - from bundles whose audit did not name it - count for
the file of that name, relative to the folder that all training images share, as in `audit.csv`. Other columns
are for people.
"""

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trainer.errors import TrainerError

Mark = Literal["defective", "fine"]
_MARKS: Mapping[str, Mark] = {"defective": "defective", "fine": "fine"}


class MarksError(TrainerError):
    """The file of marks cannot be used; the message says why."""


@dataclass(frozen=True)
class Marks:
    """Marks by the sha256 of a file, and by name where that is not known."""

    path: Path
    by_hash: Mapping[str, Mark]
    by_name: Mapping[str, Mark]

    def of(self, sha256: str, name: str) -> Mark | None:
        return self.by_hash.get(sha256) or self.by_name.get(name)

    def __bool__(self) -> bool:
        return bool(self.by_hash or self.by_name)


def read_marks(path: Path) -> Marks:
    """The marks of a CSV with the columns `image`, `mark` and, if known, `sha256`."""
    by_hash: dict[str, Mark] = {}
    by_name: dict[str, Mark] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            missing = {"image", "mark"} - set(reader.fieldnames or ())
            if missing:
                raise MarksError(f"{path} has no column {' and no column '.join(sorted(missing))}")
            for row in reader:
                mark, sha256 = _MARKS.get(row["mark"] or ""), row.get("sha256") or ""
                where = f"{path}, line {reader.line_num}"
                if mark is None:
                    raise MarksError(f"{where}: the mark must be defective or fine, not {row['mark']!r}")
                if sha256 and not re.fullmatch(r"[0-9a-f]{64}", sha256):
                    raise MarksError(f"{where}: {sha256[:80]!r} is no sha256")
                known, key = (by_hash, sha256) if sha256 else (by_name, row["image"] or "")
                if known.setdefault(key, mark) != mark:
                    raise MarksError(f"{where}: {row['image']} is marked as defective and as fine")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MarksError(f"{path} cannot be read: {error}") from None
    return Marks(path, by_hash, by_name)
