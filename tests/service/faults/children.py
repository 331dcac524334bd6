"""`python -m tests.service.faults.children`: the service's processes, started in a tenth of a second.

It has everything imported, and forks for each line of its input. What it forks is an API or a worker like any
other, on an engine that only sleeps; it can be killed, and be broken on purpose (`broken`).
"""

import asyncio
import json
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

import alembic.command  # noqa: F401
import numpy as np
import uvicorn

import service.engine_loader
import service.queue.bell
import service.queue.streams
import service.worker_main
from models.bundle import Bundle
from models.engine import RawMap
from service.app import create_app
from service.settings import Settings
from tests.service.conftest import PixelEngine
from tests.service.faults.broken import BROKEN


class Sleeping(PixelEngine):
    """Sleeps over every image, but not over the blank ones of a warm-up."""

    def __init__(self, delay_s: float) -> None:
        super().__init__()
        self._image_s = delay_s

    def run(self, images: Any, *more: Any, **named: Any) -> list[RawMap]:
        self.delay_s = self._image_s if np.ptp(images) else 0.0
        answers = super().run(images, *more, **named)
        self.batches.clear()  # of use to other tests, and growing
        return answers


def api(settings: Settings, engine: Sleeping) -> None:
    # Without a worker inside it asks a bundle on disk what model there is.
    service.engine_loader.own_bundle = lambda _: Bundle(Path("none"), engine.manifest, engine.model_hash)
    config = uvicorn.Config(
        create_app(settings, engine), port=settings.port, log_config=None, access_log=False
    )
    uvicorn.Server(config).run()


def worker(settings: Settings, engine: Sleeping) -> None:
    opened = partial(service.worker_main.open_runtime, engine=engine)
    service.worker_main.open_runtime = opened  # type: ignore[assignment]
    asyncio.run(service.worker_main.run(settings))


def child(order: dict[str, Any]) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number, end in enumerate((os.open(os.devnull, os.O_RDONLY), log, log)):
        os.dup2(end, number)
    settings = Settings(**{**order["settings"], "data": Path(order["settings"]["data"])})
    if order["broken"]:
        BROKEN[order["broken"]]()
    {"api": api, "worker": worker}[order["kind"]](settings, Sleeping(order["delay_s"]))


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # who was killed is gone at once
    started = []
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                child(json.loads(line))
                status = 0
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                sys.stderr.flush()
                os._exit(status)
        started.append(pid)
        print(pid, flush=True)
    for pid in started:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


if __name__ == "__main__":
    main()
