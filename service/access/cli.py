"""What `keys` and `users` share: a transaction on the database, and how a person writes a time."""

import getpass
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import click
from sqlalchemy.orm import Session

from service.access.principal import Principal
from service.commands import guarded, make_folder, options, settings_from
from service.db.session import Database
from service.errors import InspectionError, StartupError

DATABASE = ("data", "database_url", "log_level", "log_format")
database_options = options(*DATABASE)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def on_database(flags: dict[str, Any], run: Callable[[Session], Iterable[str]]) -> None:
    """Run in one transaction on the upgraded database and print its lines once it is committed."""

    def guarded_run() -> None:
        settings = settings_from(flags)
        if settings.database_url is None:
            make_folder(settings.data)
        database = Database(settings.url)
        try:
            database.migrate()
            with database.write() as session:
                lines = run(session)
            for line in lines:
                click.echo(line)
        except InspectionError as error:
            raise StartupError(error.detail) from None
        finally:
            database.close()

    guarded(guarded_run)


def me() -> Principal:
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        name = "unknown"
    return Principal(f"command line ({name})", "admin", "system")


def checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise StartupError(f"{name!r} is no name: letters, digits, '.', '_' and '-', at most 64")
    return name


def moment(text: str | None) -> datetime | None:
    """When something ends: a duration from now or a date, in the future."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        found = datetime.now(UTC) + duration(text)
    if found <= datetime.now(UTC):
        raise StartupError(f"--expires {text} lies in the past")
    return found


def duration(text: str) -> timedelta:
    match = re.fullmatch(r"(\d{1,5})([dh])", text)
    if match is None:
        raise StartupError(f"{text!r} is no duration; write 90d for days or 12h for hours")
    return timedelta(**{{"d": "days", "h": "hours"}[match[2]]: int(match[1])})


def until(moment: datetime | None) -> str:
    return "valid for ever" if moment is None else f"valid until {shown(moment)}"


def shown(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M UTC")
