"""A small file system that is really full, under the images or under the database."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.service.faults.conftest import Lines
from tests.service.faults.line import Answers, Line, half_written, post, rows, unfinished, until

SIZE, LEFT = 16 << 20, 192 << 10
UNDER = pytest.mark.parametrize("under", ["images", "database"])


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system in memory; skips where none can be mounted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if done.returncode:
        pytest.skip(f"a small file system can only be mounted by root: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk"):
        yield tmp_path / "disk"


def line_on(disk: Path, under: str, new_line: Lines, broken: str = "") -> Line:
    """With its images or its database on the small disk."""
    blobs = disk / "blobs" if under == "images" else disk.parent / "blobs"
    line = new_line(broken=broken, blobs=str(blobs), lease_s=1, max_attempts=1)
    if under == "database":
        line.data = disk / "data"
    return line


def filled(line: Line, disk: Path) -> tuple[Answers, Path]:
    """What callers were told while the disk filled up, and the file that has to go so that there is room."""
    line.api().wait()
    ballast, answers = disk / "ballast", Answers()
    with ballast.open("wb") as file:
        room = SIZE - LEFT - sum(path.stat().st_blocks * 512 for path in disk.rglob("*") if path.is_file())
        file.write(bytes(room))
    number = 0
    while len(answers.refused) < 5 and number < 60:
        post(line.url, number := number + 1, answers)
    return answers, ballast


@pytest.mark.promise(9)
@UNDER
def test_on_a_full_disk_nothing_is_accepted_that_is_not_stored(
    new_line: Lines, disk: Path, under: str
) -> None:
    line = line_on(disk, under, new_line)
    answers, ballast = filled(line, disk)
    assert {(answer.status_code, answer.json()["type"]) for answer in answers.refused} == {
        (507, "urn:inlier:problem:storage-full")
    }
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers.refused)
    assert answers.accepted
    assert answers.broken_off == 0
    assert answers.lost(line.database_url, line.blobs) == []
    assert half_written(line.database_url, line.blobs) == []
    assert list((line.blobs / "incoming").iterdir()) == []
    assert {row.id for row in rows(line.database_url)} == set(answers.accepted)
    ballast.unlink()
    before = len(answers.accepted)
    post(line.url, 1000, answers)
    assert len(answers.accepted) == before + 1
    until(lambda: unfinished(line.database_url) == 0, 60)
    assert {row.status for row in rows(line.database_url)} == {"done"}


@pytest.mark.promise(9, control=True)
@UNDER
def test_accepting_what_could_not_be_stored_would_be_noticed(new_line: Lines, disk: Path, under: str) -> None:
    line = line_on(disk, under, new_line, broken="passes_over_failures")
    answers, _ = filled(line, disk)
    assert answers.lost(line.database_url, line.blobs) != []
