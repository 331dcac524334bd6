"""A loaded shadow: one image at a time, one network call whenever nothing live is in hand."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from models.engine import Engine, RawMap
from models.masks import Mask
from models.samplers import Cancelled
from service.batching.stepwise import stepwise
from service.shadow.traffic import Traffic

T = TypeVar("T")


async def aside(call: Callable[[], T]) -> T:
    """Run what may never return: in a daemon thread, which keeps no process from ending."""
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            future.set_result(call())
        except Exception as error:
            future.set_exception(error)

    threading.Thread(target=run, name="shadow", daemon=True).start()
    return await asyncio.wrap_future(future)


class Shadow:
    """Scores images as the model would if it were alone on the machine; `close` ends it at any time."""

    def __init__(self, engine: Engine, traffic: Traffic) -> None:
        self.manifest, self.hash = engine.manifest, engine.model_hash
        self._slots, self._traffic = stepwise(engine), traffic
        self._closed = asyncio.Event()
        self._stop = threading.Event()

    async def rehearse(self, profile: str) -> None:
        """One network call, so that what does not run here is known at once."""
        spec = self.manifest.preprocess
        image = np.zeros((spec.channels, spec.height, spec.width), dtype=np.float32)

        def run() -> None:
            task = self._slots.begin(image, 0, profile)
            self._slots.advance([task], self._stop.is_set)
            if isinstance(task.outcome, Exception):
                raise task.outcome

        await aside(run)

    async def score(
        self, image: NDArray[np.float32], seed: int, profile: str, ignore: Mask | None
    ) -> tuple[RawMap, float]:
        """The engine's answer and the seconds it worked on it; Cancelled once closed, also if it hangs."""

        def run() -> tuple[RawMap, float]:
            task, spent_s = self._slots.begin(image, seed, profile, ignore), 0.0
            while task.outcome is None:
                self._traffic.wait(self._stop.is_set)
                begun = time.monotonic()
                self._slots.advance([task], self._stop.is_set)
                spent_s += time.monotonic() - begun
            if isinstance(task.outcome, Exception):
                raise task.outcome
            return task.outcome, spent_s

        scoring = asyncio.ensure_future(aside(run))
        closing = asyncio.ensure_future(self._closed.wait())
        try:
            await asyncio.wait([scoring, closing], return_when=asyncio.FIRST_COMPLETED)
            if not scoring.done():
                raise Cancelled("the shadow has ended")
            return scoring.result()
        finally:
            scoring.cancel()
            closing.cancel()

    def close(self) -> None:
        """Before its next network call; what still runs is left to end by itself."""
        self._stop.set()
        self._closed.set()
        self._traffic.wake()
