"""What is put into a batch, what comes back, and what is kept of it while it waits."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.drive import See
from models.engine import RawMap

Priority = Literal["camera", "backfill"]
"""A camera waits for its answer; backfill may take its time."""
BACKFILL_SHARE = 8
"""While both wait, at least one of so many images that the engine works on is backfill."""


class Expired(Exception):
    """The deadline of a job passed before its answer was there."""


@dataclass(frozen=True, eq=False)  # a job is itself, whatever it holds
class Job:
    """A preprocessed image and what to do with it."""

    id: str
    image: NDArray[np.float32]  # [C, H, W] in [-1, 1]
    seed: int
    profile: str
    priority: Priority = "camera"
    deadline: float | None = None  # of `time.monotonic()`; Expired is raised then
    ignore: NDArray[np.bool_] | None = None  # [h, w], true where nothing counts
    see: See | None = None  # in the engine's thread; engines without steps, and static batches, show nothing


@dataclass(frozen=True)
class Finished:
    """An image's RawMap with the time it waited for the engine and the time from then to its answer."""

    result: RawMap
    queue_s: float
    inference_s: float


@dataclass(eq=False)
class Ticket:
    """A job from submission to its answer. All but `gone` belongs to whoever forms the batches."""

    job: Job
    future: "asyncio.Future[Finished]"
    queued_at: float = field(default_factory=time.monotonic)
    started_at: float | None = None
    gone: bool = False  # nobody waits for the answer any more: answered, cancelled or expired

    def answer(self, result: RawMap, finished_at: float) -> None:
        """Tell the submitter, if there still is one; on the event loop."""
        started_at = self.started_at if self.started_at is not None else finished_at
        if not self.future.done():
            spent = Finished(result, started_at - self.queued_at, finished_at - started_at)
            self.future.set_result(spent)

    def fail(self, error: Exception) -> None:
        """Raise `error` at the submitter, if there still is one; on the event loop."""
        if not self.future.done():
            self.future.set_exception(error)

    def expiry(self) -> "Callable[[], None]":
        """What to call when the deadline has passed."""
        return lambda: self.fail(Expired(f"no result for {self.job.id} before its deadline"))
