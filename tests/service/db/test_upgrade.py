"""A program on tables of a newer version: it runs where that version says so, and is refused otherwise."""

import importlib
import logging
from pathlib import Path

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from click.testing import CliRunner
from sqlalchemy import inspect, text
from starlette.testclient import TestClient

from deploy.ops_test.future import ADDS, BREAKS, breaking, head, newer_version, shape, upgrade_with
from service.app import create_app
from service.cli import cli
from service.db.session import Database, alembic_config
from service.errors import StartupError
from service.settings import Settings
from tests.service.conftest import PixelEngine, flat


def test_this_version_inspects_on_newer_tables_that_serve_it(
    database: Database, settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    upgrade_with(newer_version(tmp_path, ("9998", head(), ADDS), ("9999", "9998", "    pass")), database)
    url = database.engine.url.render_as_string(hide_password=False)
    with pytest.raises(StartupError, match=f"9999.* do not serve this one .{head()}"):
        database.migrate()  # 9999 serves nobody but 9998: an older one needs to be told twice
    with database.write() as session:
        session.execute(
            text("UPDATE schema_support SET serves = :head WHERE revision = '9999'"), {"head": head()}
        )

    caplog.set_level(logging.INFO, logger="service.db.session")
    with TestClient(create_app(settings.model_copy(update={"database_url": url}), PixelEngine())) as client:
        assert (
            f"the tables (9999) belong to a newer version and still serve this one ({head()})" in caplog.text
        )
        headers = {"Content-Type": "image/png", "Prefer": "wait=30"}
        posted = client.post(
            "/v1/inspections", params={"serial": "S1"}, content=flat(9), headers=headers
        ).json()
        assert posted["verdict"] == "REJECT"
        decision = {"decision": "defective", "expected_revision": 0}
        assert client.post(f"/v1/inspections/{posted['id']}/reviews", json=decision).status_code == 201
        found = client.get("/v1/inspections", params={"serial": "S1"}).json()["items"]
        assert [(one["id"], one["verdict"]) for one in found] == [(posted["id"], "REJECT")]
    with database.read() as session:
        assert session.execute(text("SELECT pallet, weighed FROM inspections")).all() in (
            [(None, False)],
            [(None, 0)],
        )
        assert session.scalar(text("SELECT version_num FROM alembic_version")) == "9999"


def test_tables_that_break_with_it_are_refused(database: Database, tmp_path: Path) -> None:
    upgrade_with(newer_version(tmp_path, ("9999", "9999", BREAKS)), database)
    with pytest.raises(StartupError, match=f"9999.*newer.*{head()}"):
        database.migrate()
    url = database.engine.url.render_as_string(hide_password=False)
    for words in (["db", "upgrade"], ["db", "current"]):
        result = CliRunner().invoke(cli, [*words, "--database-url", url])
        assert result.exit_code != 0
        assert "9999" in result.output
        assert "Traceback" not in result.output


def test_one_breaking_step_among_adding_ones_is_enough(database: Database, tmp_path: Path) -> None:
    steps = (("9997", head(), ADDS), ("9998", "9998", "    pass"), ("9999", "9998", "    pass"))
    upgrade_with(newer_version(tmp_path, *steps), database)
    with pytest.raises(StartupError, match="newer"):
        database.migrate()


def test_current_says_that_it_is_served(database: Database, tmp_path: Path) -> None:
    upgrade_with(newer_version(tmp_path, ("9999", head(), ADDS)), database)
    url = database.engine.url.render_as_string(hide_password=False)
    result = CliRunner().invoke(cli, ["db", "current", "--database-url", url])
    assert (result.exit_code, result.output) == (0, f"9999 (newest: {head()}, which it serves)\n")


def test_what_is_served_follows_the_tables_down_and_up(database: Database) -> None:
    def noted() -> set[str]:
        with database.engine.connect() as connection:
            if not inspect(connection).has_table("schema_support"):
                return set()
            return set(connection.scalars(text("SELECT revision FROM schema_support")))

    assert head() in noted()
    database.downgrade("0007")
    assert noted() == {"0007"}
    database.downgrade("0006")
    assert noted() == set()
    database.migrate()
    assert head() in noted()


def test_migrations_serve_what_they_say(empty_database: Database) -> None:
    """Each is run by itself; one that says it serves older programs may only add."""
    with empty_database.engine.connect() as connection:
        scripts = list(ScriptDirectory.from_config(alembic_config(connection)).walk_revisions())[::-1]
    wrong = {}
    for script in scripts:
        with empty_database.engine.connect() as connection:
            before = shape(connection)
        with empty_database.migrating() as connection:
            command.upgrade(alembic_config(connection), script.revision)
        serves = getattr(script.module, "serves", None)
        if serves is None:
            assert script.revision < "0007", f"{script.revision} does not say whom it serves"
        elif serves != script.revision:
            with empty_database.engine.connect() as connection:
                if found := breaking(before, shape(connection)):
                    wrong[script.revision] = found
    assert wrong == {}


def test_a_migration_that_says_too_much_would_be_found(database: Database, tmp_path: Path) -> None:
    with database.engine.connect() as connection:
        before = shape(connection)
    upgrade_with(newer_version(tmp_path, ("9999", head(), BREAKS)), database)
    with database.engine.connect() as connection:
        found = breaking(before, shape(connection))
    assert found == ["gone: inspections.sharpness", "must be given: inspections.weight_kg"]


def test_the_template_names_what_a_migration_serves() -> None:
    folder = Path(importlib.import_module("service.db.migrations").__file__ or "").parent
    assert "serves: str = ${repr(up_revision)}" in (folder / "script.py.mako").read_text()
