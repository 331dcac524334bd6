"""Filling a database with a plant's inspections, as fast as each kind of database takes them."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg
from sqlalchemy import Connection, func, inspect, select, text

from deploy.bench.db.plant import RECIPES, REJECT, REVIEW, VERSIONS, Plant, model_hash
from service.db.session import Database
from service.db.tables import AttributeRow, InspectionRow, ModelRow, ThresholdRow

# What the migrations give a default, and the rows of the plant do not name.
_DEFAULTS = {"priority": "camera", "attempts": 1}
_ATTRIBUTE = ("inspection_id", "name", "value")


def is_filled(database: Database, plant: Plant) -> bool:
    """Whether an earlier run stored this plant there; migrated to the newest tables if so."""
    if not inspect(database.engine).has_table("inspections"):
        return False
    database.migrate()
    with database.read() as session:
        rows = session.scalar(select(func.count()).select_from(InspectionRow))
        last = session.scalar(select(func.max(InspectionRow.id)))
    if rows and (rows, last) != (plant.count, plant.identifier(plant.count - 1)):
        raise SystemExit(f"bench-db: the database holds {rows} other inspections; give it an empty one")
    return bool(rows)


def fill(database: Database, plant: Plant) -> None:
    """Rows without their indexes, then the indexes: much faster than one by one, and the same in the end."""
    database.migrate()
    with database.write() as session:
        now = datetime(2026, 1, 1, tzinfo=UTC)
        for version in range(VERSIONS):
            for name in ("gear", "all"):
                key = model_hash(name, version)
                session.add(
                    ModelRow(hash=key, name=name, version=str(version + 1), path="", registered_at=now)
                )
        session.flush()
        for recipe in RECIPES:
            session.add(
                ThresholdRow(
                    id=f"limits-{recipe}",
                    recipe=recipe,
                    model_hash=model_hash(recipe, 0),
                    profile="fast",
                    version=1,
                    review=REVIEW,
                    reject=REJECT,
                    who="bench",
                    created_at=now,
                    why="bench",
                )
            )
    tables = (InspectionRow.__table__, AttributeRow.__table__)
    indexes = [index for table in tables for index in sorted(table.indexes, key=lambda one: one.name)]
    with database.write() as session:
        for index in indexes:
            index.drop(session.connection())
    for portion in plant.portions():
        columns = {**portion.columns}
        for name, value in _DEFAULTS.items():
            columns[name] = [value] * len(columns["id"])
        with database.write() as session:
            _insert(session.connection(), "inspections", list(columns), zip(*columns.values(), strict=True))
            _insert(session.connection(), "inspection_attributes", _ATTRIBUTE, portion.attributes)
    with database.write() as session:
        for index in indexes:
            index.create(session.connection())
    if database.engine.dialect.name == "postgresql":
        # What its autovacuum does within minutes of so many new rows.
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))


def _insert(connection: Connection, table: str, names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    raw: Any = connection.connection.dbapi_connection
    if isinstance(raw, psycopg.Connection):
        with raw.cursor() as cursor, cursor.copy(f"COPY {table} ({', '.join(names)}) FROM STDIN") as copy:
            for block in _blocks(rows):
                copy.write(block)
        return
    marks = ", ".join("?" * len(names))
    raw.executemany(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})", rows)


def _blocks(rows: Iterable[Sequence[Any]], size: int = 1000) -> Iterator[str]:
    """Rows as COPY reads them; nothing in them needs escaping."""
    lines: list[str] = []
    for row in rows:
        lines.append("\t".join("\\N" if value is None else str(value) for value in row) + "\n")
        if len(lines) == size:
            yield "".join(lines)
            lines.clear()
    yield "".join(lines)
