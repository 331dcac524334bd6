"""What every command shares: a flag per setting, settings from flags, and one line instead of a traceback."""

import sys
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from pydantic import ValidationError

from service import logs, tracing
from service.errors import StartupError
from service.settings import Settings, limit_opencv, settings_problem

if TYPE_CHECKING:
    from service.blobs import BlobStore
    from service.db.session import Database

_EXIT_STARTUP = 2
STORE = (
    *("data", "database_url", "blobs"),
    *("s3_endpoint", "s3_region", "s3_access_key", "s3_secret_key", "s3_timeout_s"),
)
"""The settings that say where rows, images and maps are."""


def options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A flag per setting (all, or the named ones); the default stays with `Settings`."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for name, field in reversed(Settings.model_fields.items()):
            if names and name not in names:
                continue
            shown = "" if field.default is None else f" [default: {field.default}]"
            command = click.option(
                f"--{name.replace('_', '-')}",
                name,
                type=_click_type(field.annotation),
                default=None,
                help=f"{field.description}{shown} (INLIER_{name.upper()})",
            )(command)
        return command

    return decorate


def _click_type(annotation: Any) -> click.ParamType[Any]:
    choices = typing.get_args(annotation)
    if typing.get_origin(annotation) is typing.Literal:
        return click.Choice(choices)
    kinds: dict[Any, click.ParamType[Any]] = {
        int: click.INT,
        float: click.FLOAT,
        Path: click.Path(path_type=Path),
    }
    plain = next((choice for choice in choices if choice is not type(None)), annotation)
    return kinds.get(plain, click.STRING)


def settings_from(flags: dict[str, Any]) -> Settings:
    """Settings from the flags that were given; logging and OpenCV's limit follow them."""
    try:
        settings = Settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        raise StartupError(settings_problem(error)) from None
    limit_opencv(settings.max_pixels)
    logs.configure(settings.log_level, settings.log_format)
    return settings


@contextmanager
def traced(settings: Settings, role: str) -> "Iterator[None]":
    """Traces for as long as a process runs, if the settings want them."""
    if settings.traces == "otlp":
        tracing.start(role)
    try:
        yield
    finally:
        tracing.stop()


def existing(flags: dict[str, Any]) -> Settings:
    """Settings from the flags, for what works on the data of a service; StartupError where there are none."""
    settings = settings_from(flags)
    if settings.database_url is None and not settings.data.is_dir():
        raise StartupError(f"there is no data folder {settings.data}; see --data")
    return settings


@contextmanager
def opened(settings: Settings, failed: str) -> "Iterator[tuple[Database, BlobStore]]":
    """The upgraded database and the blobs; `failed` begins what is said when they cannot be used."""
    # Imported late: only commands that need it wait for SQLAlchemy.
    from sqlalchemy.exc import DatabaseError

    from service.blobs import BlobsUnavailable
    from service.blobs.open import open_blobs
    from service.db.session import Database

    database = Database(settings.url)
    try:
        database.migrate()
        yield database, open_blobs(settings, alone=False)
    except (DatabaseError, BlobsUnavailable) as error:
        reason = error.orig if isinstance(error, DatabaseError) else error
        raise StartupError(f"{failed}: {reason}") from None
    finally:
        database.close()


def guarded(run: Callable[[], None]) -> None:
    """Run a command; what the person at the terminal did wrong becomes one line and status 2."""
    try:
        run()
    except StartupError as error:
        click.echo(f"inlier-service: {error}", err=True)
        sys.exit(_EXIT_STARTUP)


def make_folder(folder: Path) -> None:
    """Make the data folder, or say why it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StartupError(
            f"the data folder {folder} cannot be written ({error.strerror}); see --data"
        ) from None
