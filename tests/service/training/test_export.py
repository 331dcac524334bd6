"""Training sets on both databases: every inspection has one fate, and no examined image is trained on."""

import csv
import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import select

from models.bundle import Thresholds
from models.snapshot import COLUMNS, Manifest, SnapshotError, verify
from service.blobs import DiskBlobs
from service.cli import cli
from service.db.repository import masks, reviews, thresholds
from service.db.session import Database
from service.db.tables import AuditRow
from service.errors import StartupError
from service.training.export import export
from service.training.select import HELD_OUT, held_out
from tests.service.db import rows as make
from tests.service.training.line import SPAN, Line, picture


@pytest.fixture
def blobs(tmp_path: Path) -> DiskBlobs:
    return DiskBlobs(tmp_path / "blobs")


@pytest.fixture
def line(database: Database, blobs: DiskBlobs) -> Line:
    return Line(database, blobs)


def assert_every_inspection_has_one_fate(manifest: Manifest) -> None:
    fates = dict(manifest.inspections)
    assert fates.pop("all") == sum(fates.values())


def test_what_is_trained_on_and_what_is_not(line: Line, tmp_path: Path) -> None:
    plain = line.inspect(b"plain")
    line.inspect(b"plain", day=1)  # the camera sent the very same bytes again
    good = line.inspect(picture(1, held=False), ["good"])
    exam = line.inspect(picture(2, held=True), ["good"])
    unsure = line.inspect(b"unsure", ["unsure"])
    rejected = line.inspect(b"rejected", verdict="REJECT")  # nobody looked: as it comes
    found = line.inspect(b"found", ["defective"], verdict="REJECT")
    missed = line.inspect(b"missed", ["defective"])
    withdrawn = line.inspect(b"mistaken", ["defective", "withdrawn"])
    line.inspect(b"quarrel", ["good"])
    line.inspect(b"quarrel", ["defective"], verdict="REJECT")
    line.inspect(b"waiting", status="queued", verdict=None, score=None)
    line.inspect(b"broken", status="failed", verdict="ERROR", score=None)
    other = line.inspect(b"other part")
    with line.database.write() as session:
        reviews.lock(session, other).recipe = "nut"

    manifest, lines = line.export(tmp_path / "out")
    assert {key: (row["use"], row["label"]) for key, row in lines.items()} == {
        plain: ("train", ""),
        good: ("train", "good"),
        unsure: ("train", ""),
        rejected: ("train", ""),
        withdrawn: ("train", ""),
        exam: ("golden/good", "good"),
        found: ("golden/defective", "defective"),
        missed: ("escapes", "defective"),
    }
    assert manifest.inspections == {
        **{"all": 13, "train": 5, "same_image": 1, "held_out": 1, "defective": 2, "conflicting": 2},
        **{"queued": 1, "failed": 1, "beyond_limit": 0},
    }
    assert_every_inspection_has_one_fate(manifest)
    assert (manifest.images["train"], manifest.images["train_confirmed_good"]) == (5, 1)
    assert manifest.images["conflicting"] == 1
    assert lines[plain]["inspections"] == "2"
    assert (lines[plain]["lot"], lines[plain]["day"], lines[plain]["station"]) == ("lot0", "2026-03-01", "s1")
    assert (lines[found]["reviewed_by"], lines[found]["reason"]) == ("ann", "scratch")
    assert lines[withdrawn]["review_state"] == "none"
    for row in lines.values():
        data = (tmp_path / "out" / row["image"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == row["image_sha256"]
    with line.database.read() as session:
        (entry,) = session.scalars(select(AuditRow).where(AuditRow.action == "training.export"))
    assert entry.detail["snapshot"] == manifest.snapshot


def test_a_missed_defect_is_remembered_for_ever_and_its_picture_never_trained_on(
    line: Line, tmp_path: Path
) -> None:
    missed = line.inspect(b"missed", ["defective"])
    recent = line.inspect(b"recent", day=40)
    line.inspect(b"missed", day=41)  # the same picture, and nobody has said so this time
    manifest, lines = line.export(
        tmp_path / "out", since=make.START + timedelta(days=35), until=make.START + timedelta(days=60)
    )
    assert {key: row["use"] for key, row in lines.items()} == {missed: "escapes", recent: "train"}
    assert manifest.inspections["defective"] == 1
    assert_every_inspection_has_one_fate(manifest)


def test_the_same_data_gives_the_same_bytes(line: Line, tmp_path: Path) -> None:
    for number in range(8):
        line.inspect(picture(number), ["good"] if number % 2 else [], day=number % 3)
    first, _ = line.export(tmp_path / "a")
    again, _ = line.export(tmp_path / "b")
    assert first == again
    assert (tmp_path / "a/manifest.json").read_bytes() == (tmp_path / "b/manifest.json").read_bytes()
    # Repeated into the same place it is found to be there; anything else is never overwritten.
    assert not export(line.database, line.blobs, "bolt", SPAN, tmp_path / "a").new
    line.inspect(b"one more")
    with pytest.raises(StartupError, match="something else"):
        export(line.database, line.blobs, "bolt", SPAN, tmp_path / "a")
    assert {path.name for path in tmp_path.iterdir()} >= {"a", "b"}
    assert not list(tmp_path.glob(".training-set-*"))


def test_the_limit_draws_evenly_and_keeps_confirmed_ones(line: Line, tmp_path: Path) -> None:
    for number in range(60):
        line.inspect(picture(number), day=number % 3)
        line.inspect(picture(number), day=number % 3)
    kept = [line.inspect(picture(100 + number, held=False), ["good"]) for number in range(3)]
    manifest, lines = line.export(tmp_path / "out", limit=30)
    assert len(lines) == manifest.images["train"] == 30
    assert set(kept) <= set(lines)
    assert manifest.inspections["beyond_limit"] == 123 - 3 - 2 * 27
    assert_every_inspection_has_one_fate(manifest)
    assert {row["lot"] for row in lines.values()} == {"lot0", "lot1", "lot2"}
    fewer, _ = line.export(tmp_path / "fewer", limit=10)
    assert set(fewer.files) - {"reviews.csv"} < set(manifest.files)


def test_images_that_are_gone_or_not_what_they_were_are_told(
    line: Line, tmp_path: Path, blobs: DiskBlobs
) -> None:
    line.inspect(b"there")
    gone, torn, escape = (
        line.inspect(b"gone"),
        line.inspect(b"torn"),
        line.inspect(b"escape", ["defective"]),
    )
    for data in (b"gone", b"escape"):
        blobs._path(hashlib.sha256(data).hexdigest()).unlink()
    blobs._path(hashlib.sha256(b"torn").hexdigest()).write_bytes(b"tor")
    manifest, lines = line.export(tmp_path / "out")
    assert {key: lines[key]["use"] for key in (gone, torn, escape)} == {
        gone: "removed",
        torn: "damaged",
        escape: "removed",
    }
    assert not lines[gone]["image"]
    assert manifest.images["escapes_removed"] == manifest.images["train_removed"] == 1
    assert manifest.inspections["removed"] == manifest.inspections["damaged"] == 1
    assert_every_inspection_has_one_fate(manifest)


def test_the_operating_point_and_the_mask_go_along(line: Line, tmp_path: Path, blobs: DiskBlobs) -> None:
    line.inspect(b"plain")
    with line.database.write() as session:
        values = Thresholds(review=2.5, reject=4.5)
        thresholds.add(session, "bolt", make.MODEL, "fast", values, who="ann", why="")
        named = {"size": (4, 4), "share": 0.25, "who": "ann", "why": ""}
        masks.add(session, "bolt", sha256=blobs.put(b"a mask"), **named)
    manifest, _ = line.export(tmp_path / "out")
    assert manifest.operating_point is not None
    assert (manifest.operating_point.review, manifest.operating_point.profile) == (2.5, "fast")
    assert (tmp_path / "out/mask.png").read_bytes() == b"a mask"
    assert manifest.mask == 1


def test_text_of_others_is_no_formula(line: Line, tmp_path: Path) -> None:
    found = line.inspect(b"plain", station="=1+1", line="a,b\n")
    _, lines = line.export(tmp_path / "out")
    assert (lines[found]["station"], lines[found]["line"]) == ("'=1+1", "a,b\n")


def test_about_half_of_the_confirmed_good_ones_are_held_out() -> None:
    share = sum(held_out(hashlib.sha256(bytes([n, k])).hexdigest()) for n in range(250) for k in range(8))
    assert share / 2000 == pytest.approx(HELD_OUT, abs=0.04)


def tamper_with_an_image(out: Path) -> None:
    next((out / "train").iterdir()).write_bytes(b"something else")


def tamper_with_a_label(out: Path) -> None:
    text = (out / "reviews.csv").read_text()
    (out / "reviews.csv").write_text(text.replace("train", "trai_"))


def add_a_file(out: Path) -> None:
    (out / "train" / "extra.png").write_bytes(b"")


def link_to_elsewhere(out: Path) -> None:
    (out / "train" / "link.png").symlink_to(out / "reviews.csv")


def change_the_manifest(out: Path) -> None:
    values = json.loads((out / "manifest.json").read_text())
    values["recipe"] = "nut"
    (out / "manifest.json").write_text(json.dumps(values))


def lose_an_image(out: Path) -> None:
    next((out / "train").iterdir()).unlink()


@pytest.mark.parametrize(
    ("tamper", "complaint"),
    [
        (tamper_with_an_image, "does not match its sha256"),
        (tamper_with_a_label, "reviews.csv in .* does not match"),
        (add_a_file, "unexpected train/extra.png"),
        (link_to_elsewhere, "not a plain file"),
        (change_the_manifest, "snapshot hash"),
        (lose_an_image, "missing train/"),
        (lambda out: (out / "manifest.json").unlink(), "holds no manifest.json"),
    ],
)
def test_an_export_that_was_changed_is_refused(
    tmp_path: Path, blobs: DiskBlobs, tamper: Any, complaint: str
) -> None:
    database = Database(f"sqlite:///{tmp_path / 'inlier.sqlite3'}")
    database.migrate()
    line = Line(database, blobs)
    line.inspect(b"plain")
    line.export(tmp_path / "out")
    tamper(tmp_path / "out")
    with pytest.raises(SnapshotError, match=complaint):
        verify(tmp_path / "out")
    database.close()


def test_nothing_appears_when_it_fails_half_way(line: Line, tmp_path: Path) -> None:
    for number in range(3):
        line.inspect(picture(number))

    class Full(DiskBlobs):
        reads = 0

        def get(self, name: str) -> bytes:
            self.reads += 1
            if self.reads == 3:
                raise OSError(28, "No space left on device")
            return super().get(name)

    with pytest.raises(OSError, match="No space"):
        export(line.database, Full(line.blobs._root), "bolt", SPAN, tmp_path / "deep" / "out")
    assert list((tmp_path / "deep").iterdir()) == []


def run(database_url: str, blobs: DiskBlobs, *words: str) -> Result:
    where = ["--database-url", database_url, "--blobs", str(blobs._root), "--log-level", "warning"]
    return CliRunner().invoke(cli, ["export-training", *words, *where])


def test_the_command(
    line: Line, database_url: str, blobs: DiskBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    line.inspect(b"plain", day=1)
    span = ["--since", "2026-03-01", "--until", "2026-03-05T00:00:00+00:00"]
    found = run(database_url, blobs, "bolt", *span)
    assert found.exit_code == 0, found.output
    folder = Path(found.output.splitlines()[-1])
    assert folder.name == f"bolt-{verify(folder).snapshot[:12]}"
    assert "inspections  train          1" in found.output
    again = run(database_url, blobs, "bolt", *span)
    assert "the same export was there already" in again.output
    assert again.output.splitlines()[-1] == str(folder)
    with (folder / "reviews.csv").open() as file:
        assert tuple(next(csv.reader(file))) == COLUMNS


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["bolt"], "recipe bolt has no inspection to train on"),  # the line stood still for a month
        (["nut", "--since", "2026-01-01"], "recipe nut has no inspection to train on"),
        (["bolt", "--since", "soon"], "is no duration"),
        (["bolt", "--since", "2026-02-01", "--until", "2026-01-01"], "is not before"),
    ],
)
def test_mistakes_are_one_line_and_status_2(
    tmp_path: Path, blobs: DiskBlobs, words: list[str], complaint: str
) -> None:
    url = f"sqlite:///{tmp_path / 'inlier.sqlite3'}"
    database = Database(url)
    database.migrate()
    long_ago = make.START - timedelta(days=365)
    assert datetime.now(UTC) - long_ago > timedelta(days=30)
    Line(database, blobs).inspect(b"old", id=make.row(0).id)
    database.close()
    result = run(url, blobs, *words)
    assert result.exit_code == 2
    assert complaint in result.output
    assert "Traceback" not in result.output
