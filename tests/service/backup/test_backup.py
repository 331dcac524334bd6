"""Backups: taken beside a running service, put back into an empty place, with every inspection and blob."""

import hashlib
import json
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import select
from starlette.testclient import TestClient

from service.backup.store import Backups
from service.blobs import DiskBlobs
from service.cli import cli
from service.db.repository import retention
from service.db.session import Database
from service.db.tables import InspectionRow
from service.errors import StartupError
from service.settings import Settings
from tests.service.conftest import PixelEngine, connected, flat
from tests.service.postgres import PrivatePostgres

WAIT = {"Content-Type": "image/png", "Prefer": "wait=30"}
IMAGES = (1, 4, 9, 20)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def post(client: TestClient, *values: int) -> list[dict[str, object]]:
    return [client.post("/v1/inspections", content=flat(value), headers=WAIT).json() for value in values]


def contents(settings: Settings) -> tuple[dict[str, str], set[str]]:
    """Inspections with their verdicts, and the blobs that they name, all of which must be whole."""
    database, blobs = Database(settings.url), DiskBlobs(settings.data / "blobs")
    try:
        with database.read() as session:
            rows = dict(session.execute(select(InspectionRow.id, InspectionRow.verdict)).all())
            names = {
                name
                for column in retention.BLOBS
                for name in session.scalars(select(column))
                if name is not None
            }
    finally:
        database.close()
    for name in names:
        assert hashlib.sha256(blobs.get(name)).hexdigest() == name
    return rows, names


@pytest.fixture(params=["sqlite", "postgresql"])
def kinds(request: pytest.FixtureRequest, settings: Settings, tmp_path: Path) -> Iterator[list[Settings]]:
    """A place that is served, and an empty one, of each kind of database."""
    empty = settings.model_copy(update={"data": tmp_path / "empty"})
    if request.param == "sqlite":
        yield [settings, empty]
        return
    if shutil.which("pg_dump") is None:
        pytest.skip("pg_dump is not installed (Debian: apt-get install postgresql-client)")
    postgres: PrivatePostgres = request.getfixturevalue("postgres")
    with postgres.database() as one, postgres.database() as other:
        yield [
            settings.model_copy(update={"database_url": one}),
            empty.model_copy(update={"database_url": other}),
        ]


def where(settings: Settings) -> list[object]:
    flags: list[object] = ["--data", settings.data]
    return flags + (["--database-url", settings.database_url] if settings.database_url else [])


def test_everything_is_there_again(kinds: list[Settings], tmp_path: Path) -> None:
    served, empty = kinds
    with connected(served, PixelEngine()) as client:
        before = post(client, *IMAGES)
        taken = run("backup", tmp_path / "backup", *where(served))
        assert taken.exit_code == 0, taken.output
        stored = len(contents(served)[1])
        assert f"4 inspections, {stored} images and maps" in taken.output
        post(client, 33)  # not part of it
    restored = run("restore", tmp_path / "backup", *where(empty))
    assert restored.exit_code == 0, restored.output
    rows, names = contents(empty)
    assert rows == {one["id"]: one["verdict"] for one in before}
    assert len(names) == stored
    with connected(empty, PixelEngine()) as client:  # it is a service's again
        for one in before:
            again = client.get(f"/v1/inspections/{one['id']}").json()
            assert (again["verdict"], again["score"]) == (one["verdict"], one["score"])
            assert client.get(f"/v1/inspections/{one['id']}/image").status_code == 200
            assert client.get(f"/v1/inspections/{one['id']}/heatmap").status_code == 200
        assert post(client, 5)[0]["verdict"] is not None


def test_a_restore_disturbs_nothing_that_is_there(kinds: list[Settings], tmp_path: Path) -> None:
    served, _ = kinds
    with connected(served, PixelEngine()) as client:
        post(client, 1)
        assert run("backup", tmp_path / "backup", *where(served)).exit_code == 0
        busy = run("restore", tmp_path / "backup", *where(served))
        assert busy.exit_code == 2
    again = run("restore", tmp_path / "backup", *where(served))
    assert again.exit_code == 2
    assert "empty" in again.output
    assert len(contents(served)[0]) == 1


def test_what_is_posted_meanwhile_is_whole_or_not_there(settings: Settings, tmp_path: Path) -> None:
    """Whatever a snapshot names it has, though images come in while it is taken."""
    done = threading.Event()
    with connected(settings, PixelEngine()) as client:

        def keep_posting() -> None:
            number = 0
            while not done.is_set():
                post(client, number % 250)
                number += 1

        thread = threading.Thread(target=keep_posting)
        thread.start()
        try:
            backups = Backups(tmp_path / "backup")
            store = DiskBlobs(settings.data / "blobs")
            taken = [backups.take(settings.url, store, lambda names, _: names)]
            while taken[-1].inspections < taken[0].inspections + 3:
                shutil.rmtree(tmp_path / "backup/snapshots" / taken[-1].name)  # names are of whole seconds
                taken.append(backups.take(settings.url, store, lambda names, _: names))
        finally:
            done.set()
            thread.join(60)
    assert [one.missing for one in taken] == [[] for _ in taken]
    empty = settings.model_copy(update={"data": tmp_path / "empty"})
    assert run("restore", tmp_path / "backup", "--data", empty.data).exit_code == 0
    rows, _ = contents(empty)
    assert len(rows) == taken[-1].inspections


def test_later_snapshots_copy_only_what_is_new(settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "backup"
    with connected(settings, PixelEngine()) as client:
        post(client, 1, 4)
        run("backup", folder, "--data", settings.data)
        first = {
            path: path.stat().st_mtime_ns for path in (folder / "blobs").rglob("*") if len(path.name) == 64
        }
        post(client, 9)
        os.rename(*_aside(folder))
        run("backup", folder, "--data", settings.data)
    after = {path: path.stat().st_mtime_ns for path in (folder / "blobs").rglob("*") if len(path.name) == 64}
    assert first.items() <= after.items()
    assert len(after) > len(first)
    listed = run("restore", folder, "--list").output.splitlines()
    assert [line.split(": ")[1].split(",")[0] for line in listed] == ["2 inspections", "3 inspections"]
    old = listed[0].split(":")[0]
    empty = settings.model_copy(update={"data": tmp_path / "empty"})
    assert run("restore", folder, "--snapshot", old, "--data", empty.data).exit_code == 0
    assert len(contents(empty)[0]) == 2


def _aside(folder: Path) -> tuple[Path, Path]:
    """Give the only snapshot an earlier name: names are of whole seconds."""
    (path,) = (folder / "snapshots").iterdir()
    earlier = path.with_name("20200101T000000Z")
    said = json.loads((path / "snapshot.json").read_text())
    (path / "snapshot.json").write_text(json.dumps({**said, "name": earlier.name}))
    return path, earlier


def test_old_snapshots_go_with_what_only_they_had(settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "backup"
    with connected(settings, PixelEngine()) as client:
        post(client, 1)
        run("backup", folder, "--data", settings.data)
        os.rename(*_aside(folder))
        database = Database(settings.url)
        with database.write() as session:
            session.execute(InspectionRow.__table__.delete())
        database.close()
        post(client, 9)
        kept = run("backup", folder, "--keep", 1, "--data", settings.data)
    assert "removed 1 older" in kept.output
    (path,) = (folder / "snapshots").iterdir()
    names = set((path / "blobs.txt").read_text().split())
    assert {blob.name for blob in DiskBlobs(folder / "blobs").stored()} == names


# --- what goes wrong is said ---


def test_a_damaged_backup_is_noticed(settings: Settings, tmp_path: Path) -> None:
    folder, empty = tmp_path / "backup", tmp_path / "empty"
    with connected(settings, PixelEngine()) as client:
        post(client, 1)
        run("backup", folder, "--data", settings.data)
    blob = next(path for path in (folder / "blobs").rglob("*") if len(path.name) == 64)
    blob.write_bytes(b"another")
    spoiled = run("restore", folder, "--data", empty)
    assert spoiled.exit_code == 2
    assert "1 images or maps are damaged or missing" in spoiled.output
    (snapshot,) = (folder / "snapshots").iterdir()
    with (snapshot / "database").open("ab") as file:
        file.write(b"x")
    spoiled = run("restore", folder, "--data", tmp_path / "other")
    assert "is not what was backed up" in spoiled.output
    assert not (tmp_path / "other/inlier.sqlite3").exists()


def test_an_image_that_is_gone_is_told(settings: Settings, tmp_path: Path) -> None:
    with connected(settings, PixelEngine()) as client:
        post(client, 1)
        for path in (settings.data / "blobs").rglob("*"):
            if len(path.name) == 64:
                path.unlink()
        taken = run("backup", tmp_path / "backup", "--data", settings.data)
    assert taken.exit_code == 2
    assert "not stored any more" in taken.output


def test_wrong_places_are_named(settings: Settings, tmp_path: Path) -> None:
    assert "there is no data folder" in run("backup", tmp_path / "b", "--data", tmp_path / "no").output
    (tmp_path / "data").mkdir()
    assert "there is no database" in run("backup", tmp_path / "b", "--data", tmp_path / "data").output
    assert "holds no backup" in run("restore", tmp_path / "nothing", "--data", tmp_path / "x").output


def test_a_backup_of_one_kind_of_database_is_not_for_another(settings: Settings, tmp_path: Path) -> None:
    with connected(settings, PixelEngine()) as client:
        post(client, 1)
        run("backup", tmp_path / "backup", "--data", settings.data)
    url = "postgresql+psycopg://nobody@127.0.0.1:1/none"
    answer = run("restore", tmp_path / "backup", "--data", tmp_path / "x", "--database-url", url)
    assert "a backup of sqlite" in answer.output


def test_one_backup_at_a_time(settings: Settings, tmp_path: Path) -> None:
    backups = Backups(tmp_path)
    with backups._alone(), pytest.raises(StartupError, match="another backup"), Backups(tmp_path)._alone():
        pass


def test_the_copy_needs_no_files_beside_it(settings: Settings, tmp_path: Path) -> None:
    with connected(settings, PixelEngine()) as client:
        post(client, 1)
        run("backup", tmp_path / "backup", "--data", settings.data)
    (snapshot,) = (tmp_path / "backup/snapshots").iterdir()
    assert {path.name for path in snapshot.iterdir()} == {"database", "blobs.txt", "snapshot.json"}
    connection = sqlite3.connect(snapshot / "database")
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    connection.close()
