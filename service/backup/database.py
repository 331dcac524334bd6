"""The database as one file, as of one moment: SQLite by its own backup, PostgreSQL by pg_dump; and back."""

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from alembic.runtime.migration import MigrationContext
from sqlalchemy import URL, Connection, NullPool, create_engine, func, inspect, make_url, select, union
from sqlalchemy.exc import DatabaseError

from service.db.repository.retention import BLOBS
from service.db.session import Database
from service.db.tables import InspectionRow, ModelRow
from service.errors import StartupError
from service.settings import postgres_environment

Kind = Literal["sqlite", "postgresql"]
_ROWS = 10_000  # in memory at once


@dataclass(frozen=True)
class Contents:
    """What a copy of the database holds."""

    kind: Kind
    tables: str | None  # their version
    inspections: int
    bundles: list[str]  # folders of models, which are not part of it


def kind_of(url: str) -> Kind:
    return "postgresql" if make_url(url).get_backend_name() == "postgresql" else "sqlite"


def take(url: str, to: Path, names: Path) -> Contents:
    """Write the database to a file, and the names of the blobs that it refers to, to another."""
    if kind_of(url) == "sqlite":
        _copy_sqlite(_sqlite_file(url), to)
        with _read_only(to) as connection:
            return _look(connection, "sqlite", names)
    database = Database(url)
    try:
        with database.engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
            # One snapshot for both: what pg_dump writes is what we look at.
            snapshot = connection.scalar(select(func.pg_export_snapshot()))
            flags = ("--format=custom", f"--snapshot={snapshot}", f"--file={to}")
            _postgres("pg_dump", database.engine.url, *flags)
            return _look(connection, "postgresql", names)
    except DatabaseError as error:
        raise StartupError(f"the database {database.engine.url!r} cannot be read: {error.orig}") from None
    finally:
        database.close()


def put_back(url: str, taken: Path, kind: Kind) -> None:
    """Make the database from a file; it appears whole or not at all."""
    if kind == "postgresql":
        flags = ("--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction")
        _postgres("pg_restore", make_url(url), *flags, str(taken))
        return
    file = _sqlite_path(url)
    file.parent.mkdir(parents=True, exist_ok=True)
    partly = file.with_name(f"{file.name}.partly")
    shutil.copyfile(taken, partly)
    with partly.open("rb") as copied:
        os.fsync(copied.fileno())
    partly.rename(file)


def check_empty(url: str, kind: Kind) -> None:
    """StartupError unless a backup of this kind can be restored to `url` without harm."""
    if kind != kind_of(url):
        raise StartupError(f"this is a backup of {kind}, and the database to restore to is {kind_of(url)}")
    if kind == "sqlite":
        if (file := _sqlite_path(url)).exists():
            raise StartupError(f"{file} exists; restore to an empty place, or move it away first")
        return
    database = Database(url)
    try:
        with database.engine.connect() as connection:
            found = inspect(connection).get_table_names()
    except DatabaseError as error:
        raise StartupError(f"the database {database.engine.url!r} cannot be used: {error.orig}") from None
    finally:
        database.close()
    if found:
        raise StartupError(f"the database has tables ({', '.join(found[:3])}, ...); restore to an empty one")


def _look(connection: Connection, kind: Kind, names: Path) -> Contents:
    every = union(*(select(column).where(column.is_not(None)) for column in BLOBS))
    rows = connection.execution_options(yield_per=_ROWS).execute(every)
    with names.open("w") as file:
        for (name,) in rows:
            file.write(f"{name}\n")
    count = connection.scalar(select(func.count()).select_from(InspectionRow)) or 0
    bundles = connection.scalars(select(ModelRow.path).where(ModelRow.path != "").order_by(ModelRow.path))
    version = MigrationContext.configure(connection).get_current_revision()
    return Contents(kind, version, count, list(dict.fromkeys(bundles)))


def _sqlite_path(url: str) -> Path:
    return Path(make_url(url).database or "")


def _sqlite_file(url: str) -> Path:
    file = _sqlite_path(url)
    if not file.is_file():
        raise StartupError(f"there is no database {file}; see --data and --database-url")
    return file


def _copy_sqlite(file: Path, to: Path) -> None:
    """All in one step: in WAL mode that is one moment's state, and no writer waits for it."""
    try:
        with (
            _connected(f"file:{quote(str(file))}?mode=rw") as source,
            _connected(str(to), uri=False) as target,
        ):
            source.backup(target)
            target.execute("PRAGMA journal_mode = DELETE")  # one file, with nothing beside it
            if (found := target.execute("PRAGMA quick_check").fetchone()[0]) != "ok":
                raise StartupError(f"the database {file} is damaged: {found}")
    except sqlite3.Error as error:
        raise StartupError(f"the database {file} cannot be read: {error}") from None


@contextmanager
def _connected(name: str, *, uri: bool = True) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(name, uri=uri, isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def _read_only(file: Path) -> Iterator[Connection]:
    name = f"file:{quote(str(file))}?mode=ro&immutable=1"
    engine = create_engine("sqlite://", creator=lambda: sqlite3.connect(name, uri=True), poolclass=NullPool)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def _postgres(program: str, url: URL, *arguments: str) -> None:
    """Run one of PostgreSQL's own programs; StartupError with what it said."""
    plain = url.set(drivername="postgresql", password=None).render_as_string()
    environment = postgres_environment(None if url.password is None else str(url.password))
    command = [program, f"--dbname={plain}", *arguments]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    except FileNotFoundError:
        raise StartupError(
            f"{program} is not installed here; it comes with PostgreSQL's clients (Debian: postgresql-client)"
        ) from None
    if done.returncode:
        said = " ".join(done.stderr.split())[:500]
        raise StartupError(f"{program} failed: {said}")
