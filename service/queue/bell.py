"""Results announced through Redis, so that the API hears of what a worker in another process finished."""

import asyncio
import logging
from collections.abc import Callable, Collection

from redis.exceptions import RedisError

from service import tasks
from service.queue.streams import connect

log = logging.getLogger(__name__)
_RETRY_S = 1.0
_POLL_S = 30.0


class RedisBell:
    """Publish and subscribe; a missed message costs a waiter no more than its next look at the database."""

    def __init__(self, url: str, namespace: str = "inlier") -> None:
        self._redis = connect(url, _POLL_S)
        self._channel = f"{{{namespace}}}:ended"
        self._listeners: list[Callable[[str], None]] = []
        self._task: asyncio.Task[None] | None = None

    async def ring(self, identifiers: Collection[str]) -> None:
        if not identifiers:
            return
        try:
            await self._redis.publish(self._channel, " ".join(identifiers))
        except (RedisError, OSError) as error:
            log.warning("results could not be announced: %s", error)

    def listen(self, heard: Callable[[str], None]) -> None:
        self._listeners.append(heard)
        if self._task is None:
            self._task = asyncio.create_task(self._hear(), name="bell")

    async def close(self) -> None:
        if self._task is not None:
            await tasks.end(self._task)
        await self._redis.aclose()

    async def _hear(self) -> None:
        while True:
            try:
                async with self._redis.pubsub(ignore_subscribe_messages=True) as channel:
                    await channel.subscribe(self._channel)
                    while True:
                        message = await channel.get_message(timeout=_POLL_S)
                        for identifier in message["data"].split() if message else ():
                            for heard in self._listeners:
                                heard(identifier)
            except (RedisError, OSError) as error:
                log.warning("not hearing of results for now: %s", error)
                await asyncio.sleep(_RETRY_S)
