"""Jobs -> the engine, several images at once; see docs/decisions for why continuous is the default."""

from service.batching.base import Batching
from service.batching.job import Expired, Finished, Job, Priority
from service.batching.static import StaticBatcher

__all__ = ["Batching", "Expired", "Finished", "Job", "Priority", "StaticBatcher"]
