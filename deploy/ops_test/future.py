"""Migrations that do not exist yet: the folder of migrations with more in it, as a newer version has it."""

import shutil
from pathlib import Path

from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect

from service.db import migrations
from service.db.session import Database, alembic_config

ADDS = """
    op.create_table("pallets", sa.Column("id", sa.Integer(), primary_key=True))
    with op.batch_alter_table("inspections") as batch:
        batch.add_column(sa.Column("pallet", sa.String(length=64), nullable=True))
        batch.add_column(sa.Column("weighed", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.create_index("ix_inspections_pallet", "inspections", ["pallet"])
"""
BREAKS = """
    with op.batch_alter_table("inspections") as batch:
        batch.drop_column("sharpness")
        batch.add_column(sa.Column("weight_kg", sa.Double(), nullable=False))
"""
_FILE = """
import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{down}"
serves = "{serves}"


def upgrade() -> None:
{does}
"""


def newer_version(folder: Path, *steps: tuple[str, str, str]) -> Path:
    """Migrations of ours and then (revision, serves, what it does) each -> the folder that alembic reads."""
    made = folder / "migrations"
    shutil.copytree(Path(migrations.__file__).parent, made, ignore=shutil.ignore_patterns("__pycache__"))
    down = head()
    for revision, serves, does in steps:
        text = _FILE.format(revision=revision, down=down, serves=serves, does=does)
        (made / f"versions/{revision}_future.py").write_text(text)
        down = revision
    return made


def upgrade_with(made: Path, database: Database) -> None:
    """What `db upgrade` of that newer version does."""
    with database.migrating() as connection:
        config = alembic_config(connection)
        config.set_main_option("script_location", str(made))
        command.upgrade(config, "head")


def head() -> str:
    path = Path(migrations.__file__).parent
    found = ScriptDirectory(str(path)).get_current_head()
    assert found is not None
    return found


def shape(connection: Connection) -> dict[str, object]:
    """Tables, columns and what constrains them: `{"table": ..., "table.column": (type, must be given)}`."""
    inspector, found = inspect(connection), dict[str, object]()
    for table in inspector.get_table_names():
        found[table] = "table"
        for column in inspector.get_columns(table):
            must = not column["nullable"] and column["default"] is None
            found[f"{table}.{column['name']}"] = (str(column["type"]), must)
        for check in inspector.get_check_constraints(table):
            found[f"{table} check {check['name']}"] = check["sqltext"]
        for unique in inspector.get_unique_constraints(table):
            found[f"{table} unique"] = [*found.get(f"{table} unique", []), sorted(unique["column_names"])]  # type: ignore[misc]
        for key in inspector.get_foreign_keys(table):
            found[f"{table} refers {key['constrained_columns']}"] = key["referred_table"]
    return found


def breaking(before: dict[str, object], after: dict[str, object]) -> list[str]:
    """What of `after` a program written for `before` would stumble over."""
    found = [f"gone: {name}" for name in before.keys() - after.keys() if not _is_rule(name)]
    found += [f"changed: {name}" for name in before.keys() & after.keys() if before[name] != after[name]]
    for name in after.keys() - before.keys():
        table, _, column = name.partition(".")
        if _is_rule(name) and name.split()[0] in before:
            found.append(f"new rule: {name}")
        elif column and table in before and after[name][1]:  # type: ignore[index]
            found.append(f"must be given: {name}")
    return sorted(found)


def _is_rule(name: str) -> bool:
    return " " in name
