"""The service in this process, on a real socket."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from deploy.processes import free_port
from models.engine import Engine
from service.app import create_app
from service.settings import Settings


@contextmanager
def live(settings: Settings, engine: Engine | None, port: int | None = None) -> Iterator[str]:
    """The service behind uvicorn in a thread of its own -> its address."""
    with serve(create_app(settings, engine), port) as address:
        yield address


@contextmanager
def serve(app: ASGIApp, port: int | None = None) -> Iterator[str]:
    """Any app, like `live`."""
    port = port or free_port()
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None, access_log=False)
    server = uvicorn.Server(config)
    # Signals belong to the test's own thread.
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the service did not start"
        thread.join(0.01)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive(), "the service does not stop"
