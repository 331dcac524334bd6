"""The command line: `inlier-service serve` and `worker`, and where the other commands are hung in."""

import asyncio
import math
import signal
import socket
import time
from types import FrameType
from typing import Any

import click

from service.access.keys_cli import keys
from service.access.users_cli import users
from service.backup.command import backup, restore
from service.camera.commands import simulate, watch
from service.commands import STORE, guarded, options, settings_from, traced
from service.db.commands import db
from service.errors import StartupError
from service.model_commands import models
from service.msa.commands import msa
from service.prune_command import prune
from service.retraining.commands import list_runs, retrain, schedule
from service.settings import Settings
from service.training.command import export_training


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def cli() -> None:
    """Inspect parts with a trained model."""


@cli.command()
@options()
def serve(**flags: Any) -> None:
    """Serve a model bundle over HTTP. Each option is also an environment variable; the option wins."""
    guarded(lambda: _serve(settings_from(flags)))


@cli.command()
@options(
    *("bundle", "trusted_keys", *STORE, "host", "metrics_port"),
    *("redis_url", "lease_s", "max_attempts", "sweep_s"),
    *("runtime", "device", "threads", "profile", "max_pixels", "decode_processes", "decode_timeout_s"),
    *(
        "batching",
        "batch_size",
        "batch_delay_ms",
        "shadow_backlog",
        "shutdown_grace_s",
        "log_level",
        "log_format",
        "traces",
    ),
)
def worker(**flags: Any) -> None:
    """Run the model for `serve --workers-inside 0`; start as many as there are GPUs."""

    def run() -> None:
        settings = settings_from(flags)
        # Imported late: these import OpenCV, whose pixel limit `settings_from` has put into the environment.
        from service import worker_main

        with traced(settings, "worker"):
            asyncio.run(worker_main.run(settings))

    guarded(run)


cli.add_command(db)
cli.add_command(prune)
cli.add_command(backup)
cli.add_command(restore)
cli.add_command(export_training)
cli.add_command(watch)
cli.add_command(simulate)
cli.add_command(keys)
cli.add_command(users)
cli.add_command(models)
cli.add_command(retrain)
cli.add_command(schedule)
cli.add_command(list_runs)
cli.add_command(msa)


def main() -> None:
    """Entry point of `inlier-service`."""
    cli()


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
    # Imported late: these import OpenCV, whose pixel limit `settings_from` has put into the environment.
    from service.app import create_app

    listener = _listen(settings.host, settings.port)
    stop = _Stop()
    app = create_app(settings)
    with traced(settings, "api"):
        asyncio.run(_run(app, settings, listener, stop))


async def _run(app: Any, settings: Settings, listener: socket.socket, stop: _Stop) -> None:
    import uvicorn

    from service.pace import settle
    from service.protocol import patient

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
            app.state.services.stopping = True
            super().handle_exit(sig, frame)

    config = uvicorn.Config(
        app,
        lifespan="off",  # entered here, so that a failed start is one line and not a traceback
        log_config=None,
        access_log=False,
        proxy_headers=bool(settings.forwarded_allow_ips),
        forwarded_allow_ips=settings.forwarded_allow_ips,
        server_header=False,
        http=patient(settings.body_timeout_s),
        timeout_graceful_shutdown=max(1, round(settings.shutdown_grace_s)),
    )
    async with app.router.lifespan_context(app):
        settle()
        stop.serving = True
        server = Server(config)
        await server.serve(sockets=[listener])
        # Open requests and accepted work share one grace period.
        app.state.services.runtime.deadline = server.asked_at + settings.shutdown_grace_s


if __name__ == "__main__":
    main()
