"""Transactions: durable, undone when they fail, one writer after the other, on both databases."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import IntegrityError, OperationalError

from service.db.session import Database
from service.db.tables import AttributeRow, InspectionRow
from service.errors import StartupError, as_inspection_error
from tests.service.db import rows as make
from tests.service.postgres import PrivatePostgres


def test_sqlite_is_durable_and_checks_references(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'x.sqlite3'}")
    with database.read() as session:
        pragmas = [
            session.execute(text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    assert pragmas == ["wal", 2, 1]
    begun: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda *args: begun.append(args[2]))
    with database.write() as session:
        session.execute(text("CREATE TABLE x (n INTEGER)"))
    with database.read() as session:
        session.execute(text("SELECT * FROM x"))
    assert begun == ["BEGIN IMMEDIATE", "CREATE TABLE x (n INTEGER)", "BEGIN", "SELECT * FROM x"]
    database.close()


def test_what_may_be_lost_is_not_waited_for(database: Database) -> None:
    setting = "synchronous" if database.engine.dialect.name == "sqlite" else "synchronous_commit"
    ask = text(f"PRAGMA {setting}" if setting == "synchronous" else f"SHOW {setting}")
    said = []
    for synced in (True, False, True):
        with database.write(synced=synced) as session:
            said.append(session.scalar(ask))
    assert said in ([2, 1, 2], ["on", "off", "on"])


def test_what_is_read_in_one_session_is_of_one_moment(database: Database) -> None:
    with database.write() as session:
        make.add_model(session)
    count = text("SELECT count(*) FROM inspections")
    with database.read() as reading:
        before = reading.scalar(count)
        with database.write() as session:
            make.store(session, [make.row(1)])
        assert (before, reading.scalar(count)) == (0, 0)
    with database.read() as reading:
        assert reading.scalar(count) == 1


def test_references_are_checked(database: Database) -> None:
    with pytest.raises(IntegrityError), database.write() as session:
        make.store(session, [make.row(1, model_hash="b" * 64)])
    with database.read() as session:
        assert session.get(InspectionRow, make.identifier(1)) is None


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        *(("failed", "PASS"), ("expired", "PASS"), ("queued", "PASS"), ("running", "REJECT")),
        *(("done", None), ("done", "ERROR"), ("failed", None), ("asleep", None)),
    ],
)
def test_an_error_cannot_pass(database: Database, status: str, verdict: str | None) -> None:
    with database.write() as session:
        make.add_model(session)
    with pytest.raises(IntegrityError), database.write() as session:
        make.store(session, [make.row(1, status=status, verdict=verdict)])


def test_a_failed_transaction_leaves_nothing(database: Database) -> None:
    with database.write() as session:
        make.add_model(session)

    def half() -> None:
        with database.write() as session:
            make.store(session, [make.row(1, attributes={"a": 1})])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half()
    with database.read() as session:
        assert session.query(InspectionRow).count() == 0
        assert session.query(AttributeRow).count() == 0


def test_times_come_back_in_utc(database: Database) -> None:
    with database.write() as session:
        make.add_model(session)
        make.store(session, [make.row(1, captured_at=make.START)])
    with database.read() as session:
        row = session.get(InspectionRow, make.identifier(1))
    assert row is not None
    assert row.captured_at == make.START
    assert row.captured_at.utcoffset() == make.START.utcoffset()


def test_writers_wait_for_each_other(tmp_path: Path) -> None:
    databases = [Database(f"sqlite:///{tmp_path / 'x.sqlite3'}") for _ in range(2)]
    databases[0].migrate()
    with databases[0].write() as session:
        session.execute(text("CREATE TABLE counter (n INTEGER)"))
        session.execute(text("INSERT INTO counter VALUES (0)"))

    def count(database: Database) -> None:
        for _ in range(25):
            with database.write() as session:
                n = session.execute(text("SELECT n FROM counter")).scalar_one()
                session.execute(text("UPDATE counter SET n = :n"), {"n": n + 1})

    threads = [threading.Thread(target=count, args=(databases[i % 2],)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with databases[0].read() as session:
        assert session.execute(text("SELECT n FROM counter")).scalar_one() == 100
    for database in databases:
        database.close()


_WRITE_AND_DIE = """
import os, sys
from service.db.session import Database
from tests.service.db import rows as make
database = Database(sys.argv[1])
with database.write() as session:
    make.add_model(session)
    make.store(session, [make.row(1)])
try:
    with database.write() as session:
        make.store(session, [make.row(2)])
        session.flush()
        os.kill(os.getpid(), 9)
finally:
    pass
"""


@pytest.mark.promise(1)
def test_what_was_committed_survives_a_kill(database: Database, database_url: str) -> None:
    done = subprocess.run([sys.executable, "-c", _WRITE_AND_DIE, database_url], capture_output=True)
    assert done.returncode == -9, done.stderr
    with database.read() as session:
        assert [row.id for row in session.query(InspectionRow)] == [make.identifier(1)]


@pytest.mark.promise(9)
def test_a_database_that_went_away_is_503_and_comes_back(postgres: PrivatePostgres) -> None:
    with postgres.database() as url:
        database = Database(url)
        database.ping()
        if postgres.controlled:
            postgres.stop()
            with pytest.raises(OperationalError) as caught:
                database.ping()
            problem = as_inspection_error(caught.value)
            assert (problem.status, problem.code, problem.retry_after_s) == (503, "database-unavailable", 5)
            postgres.start()
        database.ping()
        database.close()


@pytest.mark.promise(9)
@pytest.mark.parametrize(
    "words", ["database or disk is full", "could not extend file: No space left on device"]
)
def test_a_full_disk_is_507(words: str) -> None:
    assert as_inspection_error(OperationalError("INSERT", {}, Exception(words))).status == 507


@pytest.mark.parametrize("url", ["nonsense", "mongodb://x", "postgresql+nodriver://x"])
def test_a_wrong_url_is_told(url: str) -> None:
    with pytest.raises(StartupError, match="INLIER_DATABASE_URL"):
        Database(url)
