"""How alembic reaches the database: the connection it is given, or the service's settings."""

from alembic import context
from sqlalchemy import Connection

from service.db import support
from service.db.session import Database
from service.db.tables import Base
from service.settings import Settings


def run(connection: Connection) -> None:
    # Batch mode: SQLite changes a table by copying it.
    context.configure(
        connection,
        target_metadata=Base.metadata,
        render_as_batch=True,
        compare_type=True,
        on_version_apply=support.note,
    )
    with context.begin_transaction():
        context.run_migrations()


def main() -> None:
    given = context.config.attributes.get("connection")
    if given is not None:
        run(given)
        return
    settings = Settings()
    settings.data.mkdir(parents=True, exist_ok=True)
    with Database(settings.url).migrating() as connection:
        run(connection)


main()
