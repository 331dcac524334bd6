"""`inlier-service db`: the tables and their versions."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from service.commands import guarded, make_folder, options, settings_from
from service.errors import StartupError

if TYPE_CHECKING:
    from service.db.session import Database

_OPTIONS = ("data", "database_url", "log_level", "log_format")


@click.group()
def db() -> None:
    """The database behind the service."""


@db.command()
@options(*_OPTIONS)
def upgrade(**flags: Any) -> None:
    """Bring the tables to this version's schema (`serve` does it at its start, too)."""

    def run() -> None:
        with _database(flags) as database:
            database.migrate()
            click.echo("the database is up to date")

    guarded(run)


@db.command()
@options(*_OPTIONS)
def current(**flags: Any) -> None:
    """Print the version of the tables; exits with 1 unless this version runs on them as they are."""

    def run() -> None:
        with _database(flags) as database:
            present, newest, ready = database.versions()
        note = ", which it serves" if ready and present != newest else ""
        click.echo(f"{present or 'empty'} (newest: {newest}{note})")
        if not ready:
            raise SystemExit(1)

    guarded(run)


@db.command()
@click.argument("revision")
@click.option("--yes", is_flag=True, help="really; everything that only newer tables hold is lost")
@options(*_OPTIONS)
def downgrade(revision: str, yes: bool, **flags: Any) -> None:
    """Take the tables back to REVISION, before an older version of this program is installed again."""

    def run() -> None:
        if not yes:
            raise StartupError("what only the newer tables hold would be lost; make a backup, then add --yes")
        with _database(flags) as database:
            database.downgrade(revision)
            click.echo(f"the database is at {revision}")

    guarded(run)


@contextmanager
def _database(flags: dict[str, Any]) -> Iterator["Database"]:
    # Imported late: only commands that need it wait for SQLAlchemy.
    from sqlalchemy.exc import OperationalError

    from service.db.session import Database

    settings = settings_from(flags)
    if settings.database_url is None:
        make_folder(settings.data)
    database = Database(settings.url)
    try:
        yield database
    except OperationalError as error:
        raise StartupError(f"the database {database.engine.url!r} cannot be used: {error.orig}") from None
    finally:
        database.close()
