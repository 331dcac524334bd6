"""A process that only runs inspections: no API, but metrics and health on a port of its own."""

import asyncio
import logging
import signal
import socketserver
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import click
from prometheus_client import make_wsgi_app

from service.errors import StartupError
from service.metrics import Metrics
from service.pace import settle
from service.runtime import Runtime, open_runtime, open_store
from service.settings import Settings

log = logging.getLogger(__name__)


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        log.debug(format, *args)


class Monitor:
    """`/metrics`, `/healthz/live` and `/healthz/ready` of a worker, in a thread of their own."""

    def __init__(self, host: str, port: int, metrics: Metrics) -> None:
        self.ready: Callable[[], bool] = lambda: False
        self._metrics = make_wsgi_app(metrics.registry)
        try:
            self._server = make_server(host, port, self._answer, _Server, _Quiet)
        except OSError as error:
            raise StartupError(
                f"cannot listen on {host}:{port} ({error.strerror}); choose another with --metrics-port"
            ) from None
        self.address = f"http://{host}:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, name="monitor", daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            found: Iterable[bytes] = self._metrics(environ, start)
            return found
        status, body = "404 Not Found", b"see /metrics, /healthz/live and /healthz/ready\n"
        if path == "/healthz/live" or (path == "/healthz/ready" and self.ready()):
            status, body = "200 OK", b"ok\n"
        elif path == "/healthz/ready":
            status, body = "503 Service Unavailable", b"not ready\n"
        start(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
        return [body]


async def run(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT; then finish what runs and give back the rest."""
    if settings.redis_url is None:
        raise StartupError("a worker takes its images from Redis: name it with --redis-url")
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked.set)
    async with AsyncExitStack() as stack:
        metrics = Metrics(api=False)
        monitor = Monitor(settings.host, settings.metrics_port, metrics)
        stack.push_async_callback(asyncio.to_thread, monitor.close)
        ledger = await open_store(settings, stack)
        runtime = await open_runtime(settings, metrics, stack, ledger, runs=True)
        settle()
        monitor.ready = lambda: _ready(runtime)
        metrics.ready.set(1)
        click.echo(f"inlier-service: worker ready, monitored at {monitor.address}", err=True)
        await asked.wait()
        metrics.ready.set(0)
        runtime.deadline = time.monotonic() + settings.shutdown_grace_s


def _ready(runtime: Runtime) -> bool:
    try:
        runtime.ledger.ping()
    except Exception:
        return False
    return runtime.healthy
