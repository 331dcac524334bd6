"""`inlier-service keys`: on the database, whether a service runs or not."""

from datetime import UTC, datetime
from typing import Any

import click
from sqlalchemy.orm import Session

from service.access.cli import checked_name, database_options, duration, me, moment, on_database, shown, until
from service.access.principal import SCOPES, Scope
from service.db.repository import keys as rows
from service.db.tables import ApiKeyRow
from service.errors import StartupError


@click.group()
def keys() -> None:
    """The keys of machines: cameras, gateways, scripts."""


@keys.command("create")
@click.argument("name")
@click.option("--scope", type=click.Choice(SCOPES), required=True, help="what the key may do")
@click.option("--expires", help="when it ends: 90d, 12h, or a date like 2027-01-31 [default: never]")
@database_options
def create_key(name: str, scope: Scope, expires: str | None, **flags: Any) -> None:
    """Make a key and print it, alone on the last line. It is not stored and never shown again."""

    def run(session: Session) -> list[str]:
        row, key = rows.create(session, me(), checked_name(name), scope, moment(expires))
        return [f"key for {row.name}, scope {row.scope}, {until(row.expires_at)}; keep it now:", key]

    on_database(flags, run)


@keys.command("rotate")
@click.argument("name")
@click.option("--overlap", default="24h", show_default=True, help="how long the old key stays valid")
@click.option("--expires", help="when the new key ends: 90d, 12h, or a date [default: never]")
@database_options
def rotate_key(name: str, overlap: str, expires: str | None, **flags: Any) -> None:
    """Make a second key under a name and print it on the last line; the old one ends after the overlap."""

    def run(session: Session) -> list[str]:
        row, key = rows.rotate(session, me(), name, duration(overlap), moment(expires))
        return [f"second key for {row.name}; the old one is valid for another {overlap}:", key]

    on_database(flags, run)


@keys.command("revoke")
@click.argument("name")
@click.option("--prefix", help="only the key that begins with this [default: all keys of the name]")
@database_options
def revoke_key(name: str, prefix: str | None, **flags: Any) -> None:
    """End the keys of a name at once (within five seconds where a service is running)."""

    def run(session: Session) -> list[str]:
        found = [row for row in rows.named(session, name) if row.prefix.startswith(prefix or "")]
        if not found:
            raise StartupError(f"{name} has no key that begins with {prefix}")
        rows.revoke(session, me(), found)
        return [f"revoked: {', '.join(row.prefix for row in found)}"]

    on_database(flags, run)


@keys.command("list")
@database_options
def list_keys(**flags: Any) -> None:
    """All keys by name: scope, first characters, and whether they are valid."""

    def run(session: Session) -> list[str]:
        now = datetime.now(UTC)
        return [_line(row, now) for row in rows.everything(session)]

    on_database(flags, run)


def _line(row: ApiKeyRow, now: datetime) -> str:
    ended = "revoked" if row.revoked_at is not None else "expired"
    state = until(row.expires_at) if rows.valid(row, now) else ended
    used = f"last used {shown(row.last_used_at)}" if row.last_used_at else "never used"
    return f"{row.name}\t{row.scope}\t{row.prefix}...\t{state}\t{used}"
