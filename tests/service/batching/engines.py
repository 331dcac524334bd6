"""Engines whose answers are known, and a batcher around them for the length of a test.

The id of an image is the value of its pixels: rows cannot be mixed up unseen.
"""

import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.drive import check
from models.engine import RawMap
from models.slots import Wanted
from service.batching import Batching, open_batching
from service.metrics import Metrics
from tests.service.conftest import SIZE, PixelEngine

Kind = Literal["continuous", "static"]


def image(value: int) -> NDArray[np.float32]:
    return np.full((3, SIZE, SIZE), value / 127.5 - 1, dtype=np.float32)


@asynccontextmanager
async def running(kind: Kind, engine: PixelEngine, **options: Any) -> AsyncIterator[Batching]:
    defaults = {"batch_size": 4, "batch_delay_s": 0.01, "metrics": Metrics()}
    batcher = open_batching(kind, engine, **{**defaults, **options})
    try:
        yield batcher
    finally:
        engine.go.set()
        await batcher.close(5)


@dataclass(eq=False)
class StepTask:
    image: NDArray[np.float32]
    value: int
    steps: int
    outcome: RawMap | Exception | None = None

    @property
    def wanted(self) -> Wanted:
        return Wanted(1, self.steps) if self.outcome is None else Wanted(0, 0)


class StepEngine(PixelEngine):
    """Takes `steps[profile]` calls of `delay_s` for an image; notes whose values shared each call."""

    def __init__(self, delay_s: float = 0.0, poison: int | None = None, **steps: int) -> None:
        super().__init__(delay_s, poison)
        self.steps = {"fast": 1, "paper": 5, **steps}
        self.calls: list[list[int]] = []
        self.spent: Counter[int] = Counter()  # calls by value
        self.masks: dict[int, object] = {}
        self.on_call: Callable[[int], None] = lambda call: None

    def pause_in(self, call: int) -> None:
        """In its call of this number, counted from 0, it waits for `go`."""
        self.on_call = lambda number: self.go.clear() if number == call else None

    def foresee(self, profile: str) -> Wanted:
        return Wanted(1, self.steps[profile])

    def begin(
        self,
        image: NDArray[np.float32],
        seed: int,
        profile: str,
        ignore: object = None,
        see: object = None,
    ) -> StepTask:
        value = round(float((image.mean() + 1) * 127.5))
        self.masks[value] = ignore
        return StepTask(image, value, self.steps[profile])

    def advance(self, tasks: Sequence[StepTask], should_stop: Callable[[], bool] | None = None) -> None:
        check(should_stop, "before a call")
        self.on_call(len(self.calls))
        time.sleep(self.delay_s)
        self.go.wait(10)
        self.calls.append([task.value for task in tasks])
        for task in tasks:
            self.spent[task.value] += 1
            task.steps -= 1
            if task.value == self.poison:
                task.outcome = RuntimeError("poisonous")
            elif task.steps == 0:
                task.outcome = self._answer(task.image, task.value)
