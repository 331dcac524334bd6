"""Tasks that have to end."""

import asyncio
from typing import Any

_AGAIN_S = 0.2


async def end(*tasks: "asyncio.Task[Any]") -> None:
    """Cancel tasks, and return when they have ended.

    Again and again: a cancellation that comes together with an answer of Redis is lost in its client.
    """
    while left := [task for task in tasks if not task.done()]:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=_AGAIN_S)
    await asyncio.gather(*tasks, return_exceptions=True)
