"""What a worker has in hand, and whose fault it is when it does not get to its end."""

import asyncio
import logging
from collections.abc import Awaitable
from dataclasses import dataclass, field

from service.ending import NotStored
from service.errors import wants_database, wants_storage
from service.ledger import NotBegun
from service.queue.base import Lease, QueueUnavailable

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Attempt:
    """One attempt at an image, under a lease."""

    lease: Lease
    number: int  # as the database counts
    ending: bool = False  # we are storing its end, or taking it back
    ended: bool = False  # elsewhere
    task: "asyncio.Task[None]" = field(init=False)


def blameless(error: Exception) -> bool:
    """Whether the image is not to blame: what was wrong is the disk, the store or the database."""
    return isinstance(error, (NotStored, NotBegun)) or wants_storage(error) or wants_database(error)


async def told(action: Awaitable[bool]) -> None:
    """Tell the queue; what it does not hear, the sweeper and the database make good."""
    try:
        await action
    except QueueUnavailable as error:
        log.debug("the queue was not told: %s", error)
