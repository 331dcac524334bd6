"""Connections and transactions: one short transaction per store, opened and committed in one place."""

import logging
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine, event, func, make_url, select, text
from sqlalchemy.exc import ArgumentError, DatabaseError
from sqlalchemy.orm import Session

from service import ids
from service.db import support
from service.db.repository import leases
from service.db.tables import InspectionRow, ModelEventRow, OutboxRow, TrainingRunRow
from service.errors import StartupError

log = logging.getLogger(__name__)

# A PostgreSQL that is gone without a word is noticed within seconds, not hours, and every thread of the
# service gets a connection, so that none waits for another's.
_SERVER: dict[str, Any] = {
    "pool_pre_ping": True,
    "pool_size": 8,
    "max_overflow": 56,
    "connect_args": {
        "connect_timeout": 5,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 15_000,
    },
}
_ORDERED = (InspectionRow, OutboxRow, ModelEventRow, TrainingRunRow)  # by their ids
_MIGRATION_LOCK = 0x1A11E2


class Database:
    """The database behind `url`; sessions are for one thread and never kept over an await."""

    def __init__(self, url: str) -> None:
        try:
            kind = make_url(url).get_backend_name()
            self.engine = create_engine(url, **_SERVER if kind == "postgresql" else {})
        except (ArgumentError, ImportError) as error:
            raise StartupError(f"INLIER_DATABASE_URL cannot be used: {error}") from None
        self._write_lock: Any = nullcontext()
        if kind == "sqlite":
            _prepare_sqlite(self.engine)
            # SQLite has one writer; waiting here is fair and at once, waiting in SQLite is polling.
            self._write_lock = threading.Lock()
            self._reader = self.engine
        else:
            _prepare_postgresql(self.engine)
            self._reader = self.engine.execution_options(isolation_level="REPEATABLE READ")
        self._writer = self.engine.execution_options(inlier_writer=True)
        self._hasty = self.engine.execution_options(inlier_writer=True, inlier_unsynced=True)
        self._info = {leases.SIGHTS: leases.Sights()}

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session to look things up with, all of it as it was at one moment."""
        with Session(self._reader, expire_on_commit=False, info=self._info) as session:
            yield session

    @contextmanager
    def write(self, *, synced: bool = True) -> Iterator[Session]:
        """A transaction: durable when the block ends, undone if it raises.

        Without `synced` it outlives this process at once, but a power cut only once a later one is durable,
        and nothing waits for the disk: for what is done again if it was lost.
        """
        bind = self._writer if synced else self._hasty
        with self._write_lock, Session(bind, expire_on_commit=False, info=self._info) as session:
            with session.begin():
                yield session

    def ping(self) -> None:
        """Raise OperationalError if the database does not answer."""
        with self.engine.connect() as connection:
            connection.execute(text("SELECT 1"))

    def migrate(self) -> None:
        """Bring the tables to the newest version; of several processes that try, one does it.

        Newer ones that still serve this program stay as they are; StartupError for others.
        """
        with self._alembic() as (config, connection):
            script = ScriptDirectory.from_config(config)
            if (present := support.newer(connection, script)) is None:
                command.upgrade(config, "head")
            elif support.serves(connection, script, present):
                log.info(
                    "the tables (%s) belong to a newer version and still serve this one (%s)",
                    present,
                    script.get_current_head(),
                )
            else:
                raise StartupError(
                    f"the tables ({present}) belong to a newer version of this program and do not serve this"
                    f" one ({script.get_current_head()}); start the newer version, or restore a backup"
                )
        self._follow()

    def _follow(self) -> None:
        """Our ids come after those that are stored, also if the clock has been put back."""
        with self.read() as session:
            for table in _ORDERED:
                if (newest := session.scalar(select(func.max(table.id)))) is not None:
                    ids.follow(newest)

    def downgrade(self, revision: str) -> None:
        """Take the tables back to an earlier version; what only the newer ones hold is lost."""
        with self._alembic() as (config, _):
            command.downgrade(config, revision)

    def versions(self) -> tuple[str | None, str | None, bool]:
        """The tables' version (None without any), the newest known, whether we run on them as they are."""
        with self.engine.connect() as connection:
            script = ScriptDirectory.from_config(alembic_config(connection))
            present, head = (
                MigrationContext.configure(connection).get_current_revision(),
                script.get_current_head(),
            )
            ready = present == head
            if support.newer(connection, script) is not None:
                ready = support.serves(connection, script, str(present))
            return present, head, ready

    @contextmanager
    def migrating(self) -> Iterator[Connection]:
        """A transaction for changes of the schema; of several processes one has it at a time."""
        with self._writer.connect() as connection:
            sqlite = connection.dialect.name == "sqlite"
            if sqlite:
                # SQLite changes a table by making another in its place; references must not notice.
                _pragma(connection, "foreign_keys = OFF")
            try:
                with connection.begin():
                    if not sqlite:
                        connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
                    yield connection
                    if sqlite and (dangling := connection.execute(text("PRAGMA foreign_key_check")).all()):
                        raise CommandError(f"rows would refer to nothing: {dangling[:3]}")
            finally:
                if sqlite:
                    _pragma(connection, "foreign_keys = ON")

    @contextmanager
    def _alembic(self) -> Iterator[tuple[Config, Connection]]:
        try:
            with self.migrating() as connection:
                yield alembic_config(connection), connection
        except CommandError as error:
            raise StartupError(
                f"the database cannot be migrated ({error}); it may belong to a newer version of this program"
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


def _pragma(connection: Connection, setting: str) -> None:
    """Change a setting that SQLite ignores within a transaction."""
    raw = connection.connection.dbapi_connection
    assert isinstance(raw, sqlite3.Connection)
    raw.execute(f"PRAGMA {setting}")


def _prepare_postgresql(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        # Queries here are short: compiling one takes longer than running it.
        connection.execute("SET jit = off")
        connection.commit()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        if connection.get_execution_options().get("inlier_unsynced", False):
            connection.exec_driver_sql("SET LOCAL synchronous_commit = off")


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
        options = connection.get_execution_options()
        if writer := options.get("inlier_writer", False):
            _pragma(connection, f"synchronous = {'NORMAL' if options.get('inlier_unsynced') else 'FULL'}")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writer else "BEGIN")
