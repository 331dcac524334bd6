"""Migrations on both databases: one head, down and up, with rows in the tables, and as the tables say."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from click.testing import CliRunner
from sqlalchemy import Connection, inspect, text

from service.cli import cli
from service.db import migrations
from service.db.session import Database, alembic_config
from service.db.tables import Base, InspectionRow
from service.errors import StartupError
from tests.service.db import rows as make

NEWEST = max(path.name[:4] for path in Path(migrations.__file__).parent.glob("versions/0*.py"))
OLD_ROWS = (
    "INSERT INTO models VALUES ('{model}', 'tiny', '1', 'path', '2026-01-01 00:00:00+00:00')",
    "INSERT INTO thresholds VALUES"
    " ('t', 'bolt', '{model}', 'fast', 1, 3.5, 5.25, 'w', '2026-01-01 00:00:00+00:00', 'why')",
    "INSERT INTO inspections (id, created_at, status, verdict, score, score_raw, threshold_id, recipe,"
    " attributes, profile, model_hash, model_name, model_version, latency_ms, regions, image_sha256,"
    " image_media_type, image_height_px, image_width_px, request_digest) VALUES ('{id}',"
    " '2026-01-01 00:00:00+00:00', 'done', 'REJECT', 7.5, 8.5, 't', 'bolt', '{{\"a\": 1}}', 'fast',"
    " '{model}', 'tiny', '1', '{{}}', NULL, 'i', 'image/png', 4, 5, 'd')",
)


@pytest.fixture(autouse=True)
def from_nothing(monkeypatch: pytest.MonkeyPatch, migrate_really: Callable[[Database], None]) -> None:
    monkeypatch.setattr(Database, "migrate", migrate_really)


def differences(connection: Connection) -> list[object]:
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    return compare_metadata(context, Base.metadata)


@pytest.mark.promise(22)
def test_there_is_one_head(empty_database: Database) -> None:
    with empty_database.engine.connect() as connection:
        assert len(ScriptDirectory.from_config(alembic_config(connection)).get_heads()) == 1


@pytest.mark.promise(22)
def test_migrations_lead_to_the_tables(database: Database) -> None:
    with database.engine.connect() as connection:
        assert differences(connection) == []
        indexes = {index["name"] for index in inspect(connection).get_indexes("inspections")}
        assert {"ix_inspections_verdict_id", "ix_inspections_margin", "ix_inspections_queue"} <= indexes
        checks = {check["name"] for check in inspect(connection).get_check_constraints("inspections")}
        assert checks == {
            *("ck_inspections_status", "ck_inspections_verdict"),
            *("ck_inspections_priority", "ck_inspections_review_state"),
        }


@pytest.mark.promise(22, control=True)
def test_a_difference_would_be_found(database: Database) -> None:
    with database.engine.begin() as connection:
        connection.execute(text("DROP INDEX ix_inspections_verdict_id"))
        connection.execute(text("ALTER TABLE inspections DROP COLUMN sharpness"))
        found = [entry[0] for entry in differences(connection)]  # type: ignore[index]
    assert sorted(found) == ["add_column", "add_index"]


@pytest.mark.promise(22)
def test_down_and_up_again(database: Database) -> None:
    database.downgrade("base")
    with database.engine.connect() as connection:
        assert set(inspect(connection).get_table_names()) <= {"alembic_version"}
    database.migrate()
    database.migrate()
    with database.engine.connect() as connection:
        assert differences(connection) == []


@pytest.mark.promise(22)
def test_an_upgrade_keeps_the_rows(empty_database: Database) -> None:
    empty_database.migrate()
    empty_database.downgrade("0001")
    with empty_database.engine.begin() as connection:
        for statement in OLD_ROWS:
            filled = statement.format(model=make.MODEL, id=make.identifier(1))
            connection.exec_driver_sql(filled)
    empty_database.migrate()
    with empty_database.read() as session:
        row = session.get(InspectionRow, make.identifier(1))
        assert row is not None
        assert (row.verdict, row.score, row.attributes, row.regions) == ("REJECT", 7.5, {"a": 1}, None)
        assert row.threshold is not None
        assert row.threshold.review == 3.5
        assert (row.priority, row.attempts, row.review_state, row.wanted) == ("camera", 0, "none", False)
    empty_database.downgrade("0001")
    with empty_database.read() as session:
        kept = session.execute(text("SELECT verdict, score, threshold_id FROM inspections")).all()
    assert kept == [("REJECT", 7.5, "t")]


def test_a_newer_database_is_refused(database: Database) -> None:
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StartupError, match="newer"):
        database.migrate()


@pytest.mark.promise(22)
def test_processes_that_start_together_migrate_once(database_url: str) -> None:
    databases = [Database(database_url) for _ in range(4)]
    failures: list[BaseException] = []

    def migrate(database: Database) -> None:
        try:
            database.migrate()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=migrate, args=(database,)) for database in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    present, newest, ready = databases[0].versions()
    assert present == newest
    assert ready
    for database in databases:
        database.close()


def test_commands(database_url: str, tmp_path: Path) -> None:
    def run(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(cli, ["db", *words, "--database-url", database_url])
        return result.exit_code, result.output

    assert run("current") == (1, f"empty (newest: {NEWEST})\n")
    assert run("upgrade") == (0, "the database is up to date\n")
    assert run("current") == (0, f"{NEWEST} (newest: {NEWEST})\n")
    code, said = run("downgrade", "0001")
    assert (code, "--yes" in said) == (2, True)
    assert run("downgrade", "0001", "--yes") == (0, "the database is at 0001\n")
    assert run("current") == (1, f"0001 (newest: {NEWEST})\n")
    code, said = run("downgrade", "7", "--yes")
    assert code == 2
    assert "7" in said


def test_an_unreachable_database_is_one_line() -> None:
    url = "postgresql+psycopg://nobody@127.0.0.1:1/none"
    for name in ("upgrade", "current"):
        result = CliRunner().invoke(cli, ["db", name, "--database-url", url])
        assert result.exit_code == 2
        assert result.output.startswith("inlier-service: the database ")
        assert "Traceback" not in result.output
