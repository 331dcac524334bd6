"""What the demo keeps between runs, and how it knows that it still fits."""

import fcntl
import hashlib
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from told import DemoError

ROOT = Path(__file__).parents[2]
CODE = ("models/**/*.py", "trainer/**/*.py", "trainer/recipes/*.toml", "constraints.txt")


def code_files() -> list[Path]:
    return sorted(path for pattern in CODE for path in ROOT.glob(pattern))


def digest(files: Iterable[Path], *extra: object) -> str:
    """A short hash over files and values: changes whenever a kept result would be stale."""
    total = hashlib.sha256(repr(extra).encode())
    for file in files:
        total.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes() + b"\0")
    return total.hexdigest()[:12]


def forget_others(work: Path, current: set[str]) -> None:
    """Remove data and models of earlier versions of the code."""
    for folder in [*work.glob("data-*"), *work.glob("model-*")]:
        if folder.name not in current:
            shutil.rmtree(folder)


@contextmanager
def only_one(work: Path) -> Iterator[None]:
    """Keep two demos from sharing one folder."""
    work.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DemoError(f"another demo is running in {work}; stop it first") from None
        yield
