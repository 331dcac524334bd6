"""Whether a program may run on tables that are newer than it.

Each migration names the oldest revision whose programs it still serves (`serves` in its file), and that is
noted in `schema_support`. A program that finds revisions it does not know reads there whether it is served.
See docs/decisions/0016-expand-then-contract.md.
"""

from collections.abc import Collection, Mapping
from typing import Any, cast

from alembic.runtime.migration import MigrationContext, MigrationInfo
from alembic.script import Script, ScriptDirectory
from sqlalchemy import Connection, delete, insert, inspect, select

from service.db.tables.support import SchemaSupportRow


def note(
    ctx: MigrationContext, step: MigrationInfo, heads: Collection[Any], run_args: Mapping[str, Any]
) -> None:
    """Alembic's hook after each migration: whom the tables serve now."""
    connection = ctx.connection
    assert connection is not None
    if not inspect(connection).has_table(SchemaSupportRow.__tablename__):
        return  # before 0007
    script = cast(Script, step.up_revision)
    connection.execute(delete(SchemaSupportRow).where(SchemaSupportRow.revision == script.revision))
    if step.is_upgrade:
        values = {"revision": script.revision, "serves": script.module.serves}
        connection.execute(insert(SchemaSupportRow).values(values))


def newer(connection: Connection, script: ScriptDirectory) -> str | None:
    """The revision of the tables if this program does not know it."""
    present = MigrationContext.configure(connection).get_current_revision()
    known = {item.revision for item in script.walk_revisions()}
    return None if present is None or present in known else present


def serves(connection: Connection, script: ScriptDirectory, present: str) -> bool:
    """Whether tables at the unknown revision `present` say that they serve this program."""
    if not inspect(connection).has_table(SchemaSupportRow.__tablename__):
        return False
    rows = connection.execute(select(SchemaSupportRow.revision, SchemaSupportRow.serves)).all()
    noted = {revision: oldest for revision, oldest in rows}
    known = {item.revision for item in script.walk_revisions()}
    unknown = noted.keys() - known
    return present in unknown and all(noted[revision] in known for revision in unknown)
