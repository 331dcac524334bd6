"""Retention on both databases: what goes, what stays, and that no interruption leaves anything dangling."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import event, func, select
from sqlalchemy.orm import Session

import service.prune
from service.access.principal import SYSTEM, Principal
from service.blobs import BlobMissing, DiskBlobs
from service.cli import cli
from service.db.repository import retention
from service.db.repository.retention import Limit
from service.db.session import Database
from service.db.tables import AttributeRow, AuditRow, Base, InspectionRow, MaskRow, RecipeRow, ReviewRow
from service.prune import prune
from tests.service.db import rows as make

OLD_S = time.time() - 30 * 86400
GRACE_S = 3600.0
EXPIRED = 12  # of the rows that `line` makes


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.prune._SETTLE_S", 0)


@pytest.fixture
def blobs(tmp_path: Path) -> DiskBlobs:
    return DiskBlobs(tmp_path / "blobs")


def put(blobs: DiskBlobs, data: str, at: float = OLD_S) -> str:
    name = blobs.put(data.encode())
    os.utime(blobs._path(name), (at, at))
    return name


@pytest.fixture
def line(database: Database, blobs: DiskBlobs) -> Database:
    """Twelve expired inspections of `bolt`, six that stay for one reason each, and blobs of all of them."""
    now = datetime.now(UTC)
    stays: list[dict[str, Any]] = [
        {"recipe": "nut"},
        {"recipe": "unknown"},
        {"status": "queued", "verdict": None},
        {"review_state": "good", "review_revision": 1},
        {"review_revision": 2},  # reviewed, and withdrawn again
        {"claimed_by": "ann", "claimed_until": now + timedelta(minutes=5)},
    ]
    with database.write() as session:
        make.add_model(session)
        for name, days in (("bolt", 30), ("nut", None)):
            recipe = RecipeRow(name=name, retention_days=days, reasons=[], created_at=now, updated_at=now)
            session.add(recipe)
        for number, values in enumerate([{}] * EXPIRED + stays):
            images = {"image_sha256": put(blobs, f"image {number}")}
            if number % 2:  # maps are shared, as they are between equal images
                images["heatmap_sha256"] = put(blobs, f"map {number // 6}")
                images["reconstruction_sha256"] = put(blobs, f"healthy {number}")
            make.store(
                session, [make.row(number, **{"recipe": "bolt", "attributes": {"a": 1}, **images, **values})]
            )
        _new(session, blobs)
    return database


def _new(session: Session, blobs: DiskBlobs) -> None:
    """A young inspection of `bolt`, and a mask."""
    seconds = int((datetime.now(UTC) - make.START).total_seconds())
    make.store(session, [make.row(seconds, recipe="bolt", image_sha256=put(blobs, "young"))])
    mask = {"recipe": "bolt", "version": 1, "sha256": put(blobs, "mask"), "height_px": 1, "width_px": 1}
    said = {"share": 0.1, "who": "ann", "why": "", "created_at": datetime.now(UTC)}
    session.add(MaskRow(id="m", **mask, **said))


def names(database: Database) -> set[str]:
    """All blobs that rows refer to."""
    with database.read() as session:
        found = {name for column in retention.BLOBS for name in session.scalars(select(column))}
    return {name for name in found if name is not None}


def assert_nothing_dangles(database: Database, blobs: DiskBlobs) -> None:
    for name in names(database):
        blobs.get(name)
    with database.read() as session:
        orphans = select(func.count()).where(AttributeRow.inspection_id.not_in(select(InspectionRow.id)))
        assert session.scalar(orphans) == 0


def count(database: Database) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(InspectionRow)) or 0


@pytest.mark.promise(23)
def test_what_goes_and_what_stays(line: Database, blobs: DiskBlobs) -> None:
    orphan = put(blobs, "orphan")
    done = prune(line, blobs, SYSTEM, grace_s=GRACE_S)
    assert done.inspections == {"bolt": EXPIRED}
    assert count(line) == 7
    assert {blob.name for blob in blobs.stored()} == names(line)
    assert_nothing_dangles(line, blobs)
    with pytest.raises(BlobMissing):
        blobs.get(orphan)
    with line.read() as session:
        entries = session.scalars(select(AuditRow).order_by(AuditRow.id)).all()
    assert [(entry.action, entry.target, entry.detail["count"]) for entry in entries] == [
        ("inspections.prune", "recipe/bolt", EXPIRED),
        ("blobs.prune", "blobs", done.blobs),
    ]
    again = prune(line, blobs, SYSTEM, grace_s=GRACE_S)
    assert (again.inspections, again.blobs) == ({"bolt": 0}, 0)


def test_a_dry_run_removes_nothing(line: Database, blobs: DiskBlobs) -> None:
    put(blobs, "orphan")
    before = {blob.name for blob in blobs.stored()}
    done = prune(line, blobs, SYSTEM, grace_s=GRACE_S, dry_run=True)
    assert (done.inspections, done.blobs) == ({"bolt": EXPIRED}, 1)
    assert count(line) == EXPIRED + 7
    assert {blob.name for blob in blobs.stored()} == before
    with line.read() as session:
        assert session.scalars(select(AuditRow)).all() == []


def test_a_blob_whose_row_is_not_yet_committed_stays(line: Database, blobs: DiskBlobs) -> None:
    young = put(blobs, "just put", time.time() - 60)
    again = put(blobs, "orphan")
    put(blobs, "orphan", time.time())  # the same picture arrives once more
    prune(line, blobs, SYSTEM, grace_s=GRACE_S)
    assert blobs.get(young) == b"just put"
    assert blobs.get(again) == b"orphan"


def test_a_blob_that_arrives_while_it_is_judged_stays(line: Database, blobs: DiskBlobs) -> None:
    """The last moment: no row refers to it, it was old when it was listed, and then it is put again."""
    orphan = put(blobs, "orphan")

    class Late(DiskBlobs):
        def remove(self, name: str, *, put_before: float) -> bool:
            if name == orphan:
                blobs.put(b"orphan")
            return super().remove(name, put_before=put_before)

    prune(line, Late(blobs._root), SYSTEM, grace_s=GRACE_S)
    assert blobs.get(orphan) == b"orphan"


def settled(line: Database, blobs: DiskBlobs, patch: pytest.MonkeyPatch) -> None:
    """An image is stored, the clock jumps an hour forwards, it is pruned, and then its row is committed."""
    image = put(blobs, "just put", time.time() - GRACE_S - 1)
    really = service.prune._settle

    def meanwhile() -> None:
        with line.write() as session:
            make.store(session, [make.row(10_000_000, image_sha256=image)])
        really()

    patch.setattr("service.prune._settle", meanwhile)
    prune(line, blobs, SYSTEM, grace_s=GRACE_S)


@pytest.mark.promise(23)
def test_a_jump_of_the_clock_removes_no_image_whose_row_is_about_to_come(
    line: Database, blobs: DiskBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled(line, blobs, monkeypatch)
    assert_nothing_dangles(line, blobs)


@pytest.mark.promise(23, control=True)
def test_looking_once_would_remove_it(
    line: Database, blobs: DiskBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[set[str]] = []
    really = service.prune._orphans

    def once(database: Database, names: set[str]) -> list[str]:
        looks.append(names)
        return sorted(names) if any(names <= earlier for earlier in looks[:-1]) else really(database, names)

    monkeypatch.setattr("service.prune._orphans", once)
    settled(line, blobs, monkeypatch)
    with pytest.raises(BlobMissing):
        assert_nothing_dangles(line, blobs)


@pytest.mark.promise(23)
def test_a_review_that_comes_between_keeps_its_inspection(line: Database) -> None:
    now = datetime.now(UTC)
    with line.read() as session:
        (limit,) = retention.limits(session, now)
        listed = retention.portion(session, limit, now, after="", most=100)
    assert len(listed) == EXPIRED
    with line.write() as session:
        review = {"revision": 1, "decision": "good", "who": "ann", "created_at": now}
        session.add(ReviewRow(id="r", inspection_id=listed[3], **review))
    with line.write() as session:
        assert retention.remove(session, limit, now, listed) == EXPIRED - 1
    with line.read() as session:
        assert session.get(InspectionRow, listed[3]) is not None


class Killed(BaseException):
    """Whatever ends a process between two steps."""


@contextmanager
def killed_at(step: int, database: Database, blobs: DiskBlobs, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Raise at the step-th statement, commit or removal of a blob."""
    left = [step]

    def tick(*_: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed

    remove = DiskBlobs.remove

    def removing(self: DiskBlobs, name: str, *, put_before: float) -> bool:
        tick()
        removed = remove(self, name, put_before=put_before)
        tick()
        return removed

    with patch.context() as patched:
        patched.setattr(DiskBlobs, "remove", removing)
        event.listen(database.engine, "before_cursor_execute", tick)
        event.listen(database.engine, "commit", tick)
        try:
            yield
        finally:
            event.remove(database.engine, "before_cursor_execute", tick)
            event.remove(database.engine, "commit", tick)


@pytest.mark.promise(23)
def test_killed_anywhere_it_leaves_nothing_dangling(
    line: Database,
    blobs: DiskBlobs,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    monkeypatch.setattr("service.prune._ROWS", 3)
    monkeypatch.setattr("service.prune._BLOBS", 4)
    kept, kills = names(line), 0
    for step in range(0, 500, 3):
        try:
            with killed_at(step, line, blobs, monkeypatch):
                prune(line, blobs, SYSTEM, grace_s=GRACE_S)
        except Killed:
            kills += 1
            assert_nothing_dangles(line, blobs)
        else:
            break
    record_property("times ended on the way", kills)
    assert kills > 5
    assert count(line) == 7
    kept = names(line)
    assert {blob.name for blob in blobs.stored()} == kept


@pytest.mark.promise(23, control=True)
def test_blobs_removed_before_their_rows_would_be_found(
    line: Database, blobs: DiskBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = service.prune._prune_rows

    def blobs_first(database: Database, who: Principal, limit: Limit, now: datetime) -> int:
        with database.read() as session:
            expired = retention.portion(session, limit, now, after="", most=1)
            for image in session.scalars(
                select(InspectionRow.image_sha256).where(InspectionRow.id.in_(expired))
            ):
                blobs.remove(image, put_before=time.time() - GRACE_S)
        return really(database, who, limit, now)

    monkeypatch.setattr("service.prune._prune_rows", blobs_first)
    dangling = 0
    for step in range(0, 30, 2):
        try:
            with killed_at(step, line, blobs, monkeypatch):
                prune(line, blobs, SYSTEM, grace_s=GRACE_S)
        except Killed:
            try:
                assert_nothing_dangles(line, blobs)
            except BlobMissing:
                dangling += 1
    assert dangling > 0


_PRUNE = """
import os, signal, sys
import service.prune
from service.access.principal import SYSTEM
from service.blobs import DiskBlobs
from service.db.session import Database
from service.prune import prune
from pathlib import Path

class Fatal(DiskBlobs):
    left = 5
    def remove(self, name, *, put_before):
        self.left -= 1
        if self.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().remove(name, put_before=put_before)

service.prune._SETTLE_S = 0
prune(Database(sys.argv[1]), Fatal(Path(sys.argv[2])), SYSTEM, grace_s=3600.0)
"""


@pytest.mark.promise(23)
def test_a_real_kill(line: Database, blobs: DiskBlobs, database_url: str) -> None:
    command = [sys.executable, "-c", _PRUNE, database_url, str(blobs._root)]
    done = subprocess.run(command, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert count(line) == 7
    assert_nothing_dangles(line, blobs)
    assert {blob.name for blob in blobs.stored()} > names(line)
    prune(line, blobs, SYSTEM, grace_s=GRACE_S)
    assert {blob.name for blob in blobs.stored()} == names(line)


@pytest.mark.promise(23)
def test_every_column_with_a_blob_is_known() -> None:
    hashed = {
        f"{table.name}.{column.name}"
        for table in Base.metadata.tables.values()
        for column in table.columns
        if column.name.endswith("sha256")
    } - {"training_marks.sha256"}  # of training images, which only bundles hold
    assert {f"{column.class_.__tablename__}.{column.key}" for column in retention.BLOBS} == hashed


def test_the_command(line: Database, blobs: DiskBlobs, database_url: str, tmp_path: Path) -> None:
    def run(*words: str) -> tuple[int, list[str]]:
        where = ["--database-url", database_url, "--blobs", str(blobs._root), "--data", str(tmp_path)]
        result = CliRunner().invoke(cli, ["prune", *words, *where, "--log-level", "warning"])
        return result.exit_code, result.output.splitlines()

    put(blobs, "orphan")
    assert run("--dry-run") == (
        0,
        [
            f"bolt: would remove {EXPIRED} inspections",
            "would remove 1 blobs that no inspection refers to now",
        ],
    )
    code, (first, second) = run()
    assert (code, first) == (0, f"bolt: removed {EXPIRED} inspections")
    assert second.startswith("removed ")
    with line.read() as session:
        assert {entry.kind for entry in session.scalars(select(AuditRow))} == {"system"}
    assert run("--grace-s", "5")[0] == 2


def test_a_wrong_folder_is_told(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["prune", "--data", str(tmp_path / "no")])
    assert result.exit_code == 2
    assert "--data" in result.output
    assert not (tmp_path / "no").exists()
