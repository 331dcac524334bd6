"""Blobs, ids, tables and migrations."""

import hashlib
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_mock_engine, inspect, text
from sqlalchemy.exc import IntegrityError

from service.blobs import BlobMissing, BlobStore
from service.db.session import Database, alembic_config
from service.db.tables import Base
from service.errors import StartupError
from service.ids import first_id_at, id_time, new_id


@pytest.fixture
def database(tmp_path: Path) -> Database:
    found = Database(f"sqlite:///{tmp_path / 'x.sqlite3'}")
    yield found
    found.close()


def test_blobs_are_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = BlobStore(tmp_path / "blobs")
    name = store.put(b"picture")
    assert name == hashlib.sha256(b"picture").hexdigest()
    assert store.get(name) == b"picture"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(OSError("power cut")))
        with pytest.raises(OSError, match="power cut"):
            store.put(b"other")
    with pytest.raises(BlobMissing):
        store.get(hashlib.sha256(b"other").hexdigest())
    assert list((tmp_path / "blobs" / "incoming").iterdir()) == []
    (tmp_path / "blobs" / "incoming" / "half").write_bytes(b"ha")
    assert store.sweep() == 1


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64, "0" * 63])
def test_blob_names_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(BlobMissing):
        BlobStore(tmp_path / "blobs").get(name)


def test_racing_writers_of_one_blob(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs")
    names: list[str] = []
    threads = [threading.Thread(target=lambda: names.append(store.put(b"x" * 100_000))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(names) == 8
    assert len(set(names)) == 1
    assert store.get(names[0]) == b"x" * 100_000


def test_ids_sort_by_time_and_never_repeat() -> None:
    ids = [new_id() for _ in range(20_000)]
    assert ids == sorted(set(ids))
    moment = id_time(ids[0])
    assert first_id_at(moment) <= ids[0] < first_id_at(moment + timedelta(milliseconds=1))
    assert ids[0] < first_id_at(moment + timedelta(microseconds=1))
    assert ids[0][14] == "7"


def test_one_head_and_migrations_match_the_tables(database: Database) -> None:
    database.migrate()
    with database.engine.connect() as connection:
        script = ScriptDirectory.from_config(alembic_config(connection))
        assert len(script.get_heads()) == 1
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
        indexes = {index["name"] for index in inspect(connection).get_indexes("inspections")}
        assert {f"ix_inspections_{name}_id" for name in ("verdict", "recipe", "lot", "serial")} <= indexes


def test_migrations_go_down_and_up(database: Database) -> None:
    database.migrate()
    with database.engine.begin() as connection:
        command.downgrade(alembic_config(connection), "base")
        assert set(inspect(connection).get_table_names()) <= {"alembic_version"}
    database.migrate()
    database.migrate()
    with database.engine.connect() as connection:
        assert {"inspections", "models", "thresholds"} <= set(inspect(connection).get_table_names())


def test_a_newer_database_is_refused(database: Database) -> None:
    database.migrate()
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StartupError, match="newer"):
        database.migrate()


def test_tables_are_valid_on_postgresql() -> None:
    statements: list[str] = []
    engine = create_mock_engine(
        "postgresql+psycopg://", lambda sql, *_: statements.append(str(sql.compile(dialect=engine.dialect)))
    )
    Base.metadata.create_all(engine, checkfirst=False)
    ddl = "\n".join(statements)
    assert ddl.count("CREATE TABLE") == len(Base.metadata.tables)
    assert "TIMESTAMP WITH TIME ZONE" in ddl


def test_sqlite_is_durable_and_checks_references(database: Database) -> None:
    database.migrate()
    with database.read() as session:
        pragmas = [
            session.execute(text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    assert pragmas == ["wal", 2, 1]
    with pytest.raises(IntegrityError), database.write() as session:
        session.execute(
            text(
                "INSERT INTO thresholds VALUES"
                " ('x', 'r', 'no-model', 'p', 1, 1, 2, 'w', '2026-01-01 00:00:00.000000', 'w')"
            )
        )


def test_the_database_refuses_an_error_that_passes(database: Database) -> None:
    database.migrate()
    columns = {
        column.name: "''" for column in Base.metadata.tables["inspections"].columns if not column.nullable
    }
    columns |= {
        "id": "'a'",
        "status": "'failed'",
        "verdict": "'PASS'",
        "latency_ms": "'{}'",
        "attributes": "'{}'",
    }
    with pytest.raises(IntegrityError, match="ck_inspections_verdict"), database.write() as session:
        session.execute(
            text(f"INSERT INTO inspections ({', '.join(columns)}) VALUES ({', '.join(columns.values())})")
        )


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
