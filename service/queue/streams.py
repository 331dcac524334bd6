"""The queue of many processes, in Redis Streams; needs Redis 6.2 or newer.

Two streams, one per priority, with one consumer group. A worker's lease is its entry in the group's pending
list: renewing it resets the idle time, and entries idle for longer than the lease are claimed by others.
Where two commands must not be torn apart they are one script. Jobs lost with Redis are put again by the
sweeper, and a group lost with Redis is made again here.
"""

import asyncio
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import (
    BusyLoadingError,
    ConnectionError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,
)

from service.queue.base import PRIORITIES, Depth, Lease, LeaseLost, Priority, QueueUnavailable
from service.queue.setback import Setback

GROUP = "workers"
RELEASED = "released"
"""A consumer that nobody is: it holds, as long overdue, what was given back."""
_DEAD_LETTERS = 1000
_SLACK_S = 5.0  # an answer may take as long as it blocks and this
_UNREACHABLE = (ConnectionError, TimeoutError, BusyLoadingError, ReadOnlyError, OSError)

_PUT = """
if redis.call('HSETNX', KEYS[2], ARGV[1], '') == 0 then return 0 end
redis.call('XADD', KEYS[1], '*', 'id', ARGV[1])
return 1
"""
# In the scripts below: KEYS = stream, known, dead; ARGV = group, consumer, entry, attempt, ...
_OURS = """
local held = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1)
if #held == 0 or held[1][2] ~= ARGV[2] or held[1][4] ~= tonumber(ARGV[4]) then return 0 end
"""
_RENEW = _OURS + "redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[3], 'JUSTID') return 1"
_RELEASE = _OURS + (
    "redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[5], 0, ARGV[3], 'IDLE', ARGV[6],"
    " 'RETRYCOUNT', held[1][4] - 1, 'JUSTID') return 1"
)
_DONE = _OURS + (
    "redis.call('XACK', KEYS[1], ARGV[1], ARGV[3]) redis.call('XDEL', KEYS[1], ARGV[3])"
    " redis.call('HDEL', KEYS[2], ARGV[5])"
)
_BURY = (
    _DONE
    + " redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[7], '*', 'id', ARGV[5], 'reason', ARGV[6]) return 1"
)


class StreamQueue:
    """A worker's or the API's end of the queue at `url`; every process has its own consumer name."""

    def __init__(self, url: str, lease_s: float, namespace: str = "inlier") -> None:
        self._lease_ms = max(1, round(lease_s * 1000))
        self._redis = connect(url, lease_s)
        # One hash tag, so that scripts find all their keys on one node of a cluster.
        self._streams = {priority: f"{{{namespace}}}:{priority}" for priority in PRIORITIES}
        self._known, self._dead = f"{{{namespace}}}:known", f"{{{namespace}}}:dead"
        self._setback = Setback(self._redis)
        self._wakes, self._woken = 0, asyncio.Event()
        self._consumer = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"

    async def open(self) -> None:
        async with _reachable():
            for stream in self._streams.values():
                try:
                    await self._redis.xgroup_create(stream, GROUP, id="0", mkstream=True)
                except ResponseError as error:
                    if "BUSYGROUP" not in str(error):
                        raise

    async def close(self) -> None:
        """Leave the group, unless jobs are still ours: those come to others when their leases run out."""
        try:
            async with _reachable():
                for stream in self._streams.values():
                    held = await self._redis.xpending_range(stream, GROUP, "-", "+", 1, self._consumer)
                    if not held:
                        await self._redis.xgroup_delconsumer(stream, GROUP, self._consumer)
        except (QueueUnavailable, RedisError):
            pass  # an idle name in a list does no harm
        await self._redis.aclose()

    async def put(self, identifier: str, priority: Priority = "camera") -> bool:
        async with _reachable():
            keys = (self._streams[priority], self._known)
            return bool(await self._redis.eval(_PUT, 2, *keys, identifier))

    async def take(self, count: int, wait_s: float) -> list[Lease]:
        deadline, wakes = time.monotonic() + wait_s, self._wakes
        async with _reachable():
            while True:
                try:
                    streams = list(self._streams.values())
                    await self._setback.mend(streams, GROUP, RELEASED, self._lease_ms + 1)
                    taken = await self._take_waiting(count)
                    left_s = deadline - time.monotonic()
                    if taken or left_s <= 0 or wakes != self._wakes:
                        return taken
                    self._woken.clear()
                    # Not longer than a part of the lease: a dead worker's jobs must be looked for meanwhile.
                    await self._arrival(min(left_s, self._lease_ms / 4000))
                except ResponseError as error:
                    if "NOGROUP" not in str(error):
                        raise
                    await self.open()

    def wake(self) -> None:
        self._wakes += 1
        self._woken.set()

    async def renew(self, lease: Lease) -> None:
        if not await self._run(_RENEW, lease):
            raise LeaseLost(lease.id)

    async def done(self, lease: Lease) -> bool:
        return await self._run(_DONE + " return 1", lease, lease.id)

    async def release(self, lease: Lease) -> bool:
        return await self._run(_RELEASE, lease, RELEASED, self._lease_ms + 1)

    async def bury(self, lease: Lease, reason: str) -> bool:
        return await self._run(_BURY, lease, lease.id, reason, _DEAD_LETTERS)

    async def depth(self) -> Depth:
        async with _reachable():
            known = int(await self._redis.hlen(self._known))
            leased, ages = 0, [0.0]
            for stream in self._streams.values():
                try:
                    pending = await self._redis.xpending(stream, GROUP)
                    delivered = (await self._redis.xinfo_groups(stream))[0]["last-delivered-id"]
                except ResponseError:  # flushed: nothing is leased, and what waits is not here yet
                    continue
                holders = {c["name"]: int(c["pending"]) for c in pending["consumers"] or ()}
                leased += sum(held for name, held in holders.items() if name != RELEASED)
                first = await self._redis.xrange(stream, min=f"({delivered}", count=1)
                ages += [time.time() - int(entry.split("-")[0]) / 1000 for entry, _ in first]
            return Depth(max(0, known - leased), leased, max(ages))

    async def dead(self, count: int = 100) -> Sequence[tuple[str, str]]:
        async with _reachable():
            found = await self._redis.xrevrange(self._dead, count=count)
            return [(fields["id"], fields["reason"]) for _, fields in found]

    async def _take_waiting(self, count: int) -> list[Lease]:
        taken: list[Lease] = []
        for priority, stream in self._streams.items():
            taken += await self._overdue(priority, count - len(taken))
            if len(taken) < count:
                read = await self._redis.xreadgroup(
                    GROUP, self._consumer, {stream: ">"}, count=count - len(taken)
                )
                for _, entries in read:
                    taken += [Lease(fields["id"], priority, 1, entry) for entry, fields in entries]
        return taken

    async def _overdue(self, priority: Priority, count: int) -> list[Lease]:
        """Jobs whose leases ran out, now ours; the cursor is followed to the end of the pending list."""
        stream, cursor, found = self._streams[priority], "0-0", list[Lease]()
        while len(found) < count:
            cursor, entries, *_ = await self._redis.xautoclaim(
                stream, GROUP, self._consumer, self._lease_ms, cursor, count=count - len(found)
            )
            for entry, fields in entries:
                held = await self._redis.xpending_range(stream, GROUP, entry, entry, 1)
                attempt = int(held[0]["times_delivered"]) if held else 1
                found.append(Lease(fields["id"], priority, attempt, entry))
            if cursor == "0-0":
                break
        return found

    async def _arrival(self, wait_s: float) -> None:
        """Return when a job may be there: something was added, or the time is over; or when woken.

        It takes nothing, so that no job is lost with a wait that is cut off.
        """
        last = {}
        for stream in self._streams.values():
            groups = await self._redis.xinfo_groups(stream)
            last[stream] = groups[0]["last-delivered-id"] if groups else "0-0"
        reading = asyncio.ensure_future(self._redis.xread(last, count=1, block=max(1, round(wait_s * 1000))))
        woken = asyncio.ensure_future(self._woken.wait())
        try:
            await asyncio.wait({reading, woken}, return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                reading.result()
        finally:
            reading.cancel()
            woken.cancel()
            await asyncio.gather(reading, woken, return_exceptions=True)

    async def _run(self, script: str, lease: Lease, *arguments: str | int) -> bool:
        keys = (self._streams[lease.priority], self._known, self._dead)
        async with _reachable():
            try:
                found = await self._redis.eval(
                    script, 3, *keys, GROUP, self._consumer, lease.token, lease.attempt, *arguments
                )
            except ResponseError as error:
                if "NOGROUP" not in str(error):
                    raise
                return False  # Redis was flushed, and the lease with it
            return bool(found)


def connect(url: str, block_s: float) -> Any:
    """A client whose answers may take `block_s` and some; ValueError for a URL it does not understand."""
    # Its annotations know neither `decode_responses` nor what a command answers, hence Any.
    return Redis.from_url(
        url,
        decode_responses=True,
        socket_timeout=block_s + _SLACK_S,
        socket_connect_timeout=_SLACK_S,
        health_check_interval=30,
    )


@asynccontextmanager
async def _reachable() -> AsyncIterator[None]:
    try:
        yield
    except _UNREACHABLE as error:
        raise QueueUnavailable(f"Redis cannot be reached: {error}") from error
