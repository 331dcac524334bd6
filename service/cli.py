"""The command line: `inlier-service serve` and `inlier-service db upgrade`."""

import asyncio
import math
import signal
import socket
import sys
import time
import typing
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import click
from pydantic import ValidationError

from service import logs
from service.errors import StartupError
from service.settings import Settings, limit_opencv, settings_problem

_EXIT_STARTUP = 2


def _options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
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


def _settings(flags: dict[str, Any]) -> Settings:
    try:
        settings = Settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        raise StartupError(settings_problem(error)) from None
    limit_opencv(settings.max_pixels)
    logs.configure(settings.log_level, settings.log_format)
    return settings


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def cli() -> None:
    """Inspect parts with a trained model."""


@cli.command()
@_options()
def serve(**flags: Any) -> None:
    """Serve a model bundle over HTTP. Each option is also an environment variable; the option wins."""
    _guarded(lambda: _serve(_settings(flags)))


@cli.group()
def db() -> None:
    """The database behind the service."""


@db.command()
@_options("data", "database_url", "log_level", "log_format")
def upgrade(**flags: Any) -> None:
    """Bring the tables to this version's schema (`serve` does it at its start, too)."""

    def run() -> None:
        from service.db.session import Database

        settings = _settings(flags)
        if settings.database_url is None:
            _make_folder(settings.data)
        database = Database(settings.url)
        database.migrate()
        database.close()
        click.echo("the database is up to date")

    _guarded(run)


def main() -> None:
    """Entry point of `inlier-service`."""
    cli()


def _guarded(run: Callable[[], None]) -> None:
    try:
        run()
    except StartupError as error:
        click.echo(f"inlier-service: {error}", err=True)
        sys.exit(_EXIT_STARTUP)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StartupError(
            f"the data folder {folder} cannot be written ({error.strerror}); see --data"
        ) from None


def _listen(host: str, port: int) -> socket.socket:
    """A socket of our own, so that a taken port is one clear line and port 0 can be told."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # Listening is left to the server once it is ready; here it only finds out if the port is free.
    except OSError as error:
        raise StartupError(
            f"cannot listen on {host}:{port} ({error.strerror}); choose another with --host and --port"
        ) from None
    return listener


class _Stop:
    """SIGTERM and SIGINT: leave at once while starting, afterwards only through the server's own shutdown."""

    def __init__(self) -> None:
        self.serving = False
        for number in (signal.SIGTERM, signal.SIGINT):
            # The server raises the signal again once it has stopped; this handler then lets the drain finish.
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self.serving:
            raise SystemExit(0)


def _serve(settings: Settings) -> None:
    # Imported late: these import OpenCV, whose pixel limit `_settings` has put into the environment.
    from service.app import create_app

    listener = _listen(settings.host, settings.port)
    stop = _Stop()
    app = create_app(settings)
    asyncio.run(_run(app, settings, listener, stop))


async def _run(app: Any, settings: Settings, listener: socket.socket, stop: _Stop) -> None:
    import uvicorn

    class Server(uvicorn.Server):
        asked_at = math.inf

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            # Only now: whoever reads this line may connect at once.
            host, port = listener.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            click.echo(f"inlier-service: ready at http://{shown}:{port}", err=True)

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            self.asked_at = min(self.asked_at, time.monotonic())
            super().handle_exit(sig, frame)

    config = uvicorn.Config(
        app,
        lifespan="off",  # entered here, so that a failed start is one line and not a traceback
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=max(1, round(settings.shutdown_grace_s)),
    )
    async with app.router.lifespan_context(app):
        stop.serving = True
        server = Server(config)
        await server.serve(sockets=[listener])
        # Open requests and accepted work share one grace period.
        app.state.services.inspector.deadline = server.asked_at + settings.shutdown_grace_s


if __name__ == "__main__":
    main()
