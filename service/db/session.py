"""Connections and transactions: one short transaction per store, opened and committed in one place."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DatabaseError
from sqlalchemy.orm import Session

from service.errors import StartupError


class Database:
    """The database behind `url`; sessions are for one thread and never kept over an await."""

    def __init__(self, url: str) -> None:
        try:
            self.engine = create_engine(url, pool_pre_ping=not url.startswith("sqlite"))
        except (ArgumentError, ImportError) as error:
            raise StartupError(f"INLIER_DATABASE_URL cannot be used: {error}") from None
        self._write_lock: Any = nullcontext()
        if make_url(url).get_backend_name() == "sqlite":
            _prepare_sqlite(self.engine)
            # SQLite has one writer; waiting here is fair and at once, waiting in SQLite is polling.
            self._write_lock = threading.Lock()
        self._writer = self.engine.execution_options(inlier_writer=True)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session to look things up with."""
        with Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction: durable when the block ends, undone if it raises."""
        with self._write_lock, Session(self._writer, expire_on_commit=False) as session, session.begin():
            yield session

    def ping(self) -> None:
        """Raise OperationalError if the database does not answer."""
        with self.engine.connect() as connection:
            connection.execute(text("SELECT 1"))

    def migrate(self) -> None:
        """Bring the tables to the newest version."""
        try:
            with self._writer.begin() as connection:
                command.upgrade(alembic_config(connection), "head")
        except CommandError as error:
            raise StartupError(
                f"the database cannot be upgraded ({error}); it may belong to a newer version of this program"
            ) from None
        except DatabaseError as error:
            raise StartupError(f"the database {self.engine.url!r} cannot be opened: {error.orig}") from None

    def close(self) -> None:
        self.engine.dispose()


def alembic_config(connection: Connection) -> Config:
    """Alembic on an open connection, with the migrations of the installed package."""
    config = Config()
    config.set_main_option("script_location", "service.db:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _prepare_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: object) -> None:
        # Transactions are begun by the listener below, not implicitly before the first INSERT.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA busy_timeout = 10000")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A writer that starts as a reader can fail half-way with SQLITE_BUSY; IMMEDIATE waits its turn.
        writer = connection.get_execution_options().get("inlier_writer", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writer else "BEGIN")
