"""Jobs -> the engine, several images at once; why continuously is told in docs/decisions."""

from typing import Literal

from models.engine import Engine
from service.batching.base import Batching
from service.batching.continuous import ContinuousBatcher
from service.batching.job import Expired, Finished, Job, Priority
from service.batching.static import StaticBatcher
from service.metrics import Metrics

__all__ = [
    "Batching",
    "ContinuousBatcher",
    "Expired",
    "Finished",
    "Job",
    "Priority",
    "StaticBatcher",
    "open_batching",
]


def open_batching(
    kind: Literal["continuous", "static"],
    engine: Engine,
    metrics: Metrics,
    *,
    batch_size: int,
    batch_delay_s: float,
) -> Batching:
    """A running batcher; needs a running event loop. `batch_delay_s` is of static batches only."""
    if kind == "static":
        return StaticBatcher(
            engine,
            metrics,
            batch_size=batch_size,
            batch_delay_s=batch_delay_s,
        )
    return ContinuousBatcher(engine, metrics, batch_size=batch_size)
