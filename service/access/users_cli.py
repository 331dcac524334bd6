"""`inlier-service users`: on the database, whether a service runs or not."""

import sys
from collections.abc import Callable
from typing import Any, get_args

import click
from sqlalchemy.orm import Session

from service.access import passwords
from service.access.cli import checked_name, database_options, me, on_database, shown
from service.access.signin import link
from service.commands import guarded
from service.db.repository import users as rows
from service.db.repository.users import Role
from service.db.tables import UserRow
from service.errors import InspectionError, StartupError

_role = click.Choice(get_args(Role))


@click.group()
def users() -> None:
    """The people who may sign in."""


@users.command("add")
@click.argument("name")
@click.option("--role", type=_role, required=True, help="operator: review; admin: change everything")
@database_options
def add_user(name: str, role: Role, **flags: Any) -> None:
    """Add a person; the password is asked for, or read from standard input."""
    _with_password(flags, lambda session, hashed: rows.add(session, me(), name, role, hashed), name)


@users.command("set-password")
@click.argument("name")
@database_options
def set_password(name: str, **flags: Any) -> None:
    """Give a person another password, asked for or read from standard input, and sign them out."""
    _with_password(flags, lambda session, hashed: rows.set_password(session, me(), name, hashed))


@users.command("set-role")
@click.argument("name")
@click.option("--role", type=_role, required=True, help="operator: review; admin: change everything")
@database_options
def set_role(name: str, role: Role, **flags: Any) -> None:
    """Make a person operator or admin, and sign them out."""

    def run(session: Session) -> list[str]:
        return [f"{rows.set_role(session, me(), name, role).name} is {role}"]

    on_database(flags, run)


@users.command("disable")
@click.argument("name")
@click.option("--undo", is_flag=True, help="let the person in again")
@database_options
def disable_user(name: str, undo: bool, **flags: Any) -> None:
    """Keep a person out, at once; what they did stays under their name."""

    def run(session: Session) -> list[str]:
        row = rows.set_disabled(session, me(), name, not undo)
        return [f"{row.name} {'may sign in again' if undo else 'may not sign in any more'}"]

    on_database(flags, run)


@users.command("link")
@click.argument("name")
@database_options
def sign_in_link(name: str, **flags: Any) -> None:
    """Print a path that signs a person in, once, within 15 minutes; put the service's address before it."""

    def run(session: Session) -> list[str]:
        return [f"/signin?link={link(session, me(), name)}"]

    on_database(flags, run)


@users.command("list")
@database_options
def list_users(**flags: Any) -> None:
    """Everybody who may sign in."""

    def run(session: Session) -> list[str]:
        return [_line(row) for row in rows.everyone(session)]

    on_database(flags, run)


def _line(row: UserRow) -> str:
    seen = f"last signed in {shown(row.last_sign_in_at)}" if row.last_sign_in_at else "never signed in"
    return f"{row.name}\t{row.role}\t{'disabled' if row.disabled else 'enabled'}\t{seen}"


def _with_password(
    flags: dict[str, Any], store: Callable[[Session, str], UserRow], new_name: str | None = None
) -> None:
    def run() -> None:
        if new_name is not None:
            checked_name(new_name)
        hashed = _hashed_password()  # slow on purpose, so before the database is locked
        on_database(flags, lambda session: [f"password of {store(session, hashed).name} is set"])

    guarded(run)


def _hashed_password() -> str:
    """From the terminal, or the first line of standard input; never an argument, which `ps` shows."""
    if sys.stdin.isatty():
        password = str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    try:
        passwords.check_new(password)
    except InspectionError as error:
        raise StartupError(error.detail) from None
    return passwords.hashed(password)
