"""What both queues promise, tried on each: the one in this process and the one in a real Redis."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable

import pytest

from service.queue.base import Depth, Lease, LeaseLost, Queue
from service.queue.memory import MemoryQueue
from service.queue.streams import StreamQueue

LEASE_S = 30.0
SHORT_S = 0.4  # where a lease has to run out
RENEWED_S = 1.5  # where it must not, though this machine may stop for a second
Body = Callable[[Queue, Queue], Awaitable[None]]


@pytest.fixture(params=["memory", "redis"])
def run(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Run a test with two workers' ends of one queue (in memory, both are the same object)."""
    url = request.getfixturevalue("redis_server").url if request.param == "redis" else ""

    async def main(body: Body, lease_s: float) -> None:
        if not url:
            queue = MemoryQueue(lease_s)
            await body(queue, queue)
            return
        namespace = secrets.token_hex(4)
        ends = [StreamQueue(url, lease_s, namespace) for _ in range(2)]
        for end in ends:
            await end.open()
        try:
            await body(ends[0], ends[1])
        finally:
            for end in ends:
                await end.close()

    return lambda body, lease_s=LEASE_S: asyncio.run(asyncio.wait_for(main(body, lease_s), 60))


async def one(queue: Queue, wait_s: float = 0) -> Lease:
    (lease,) = await queue.take(1, wait_s)
    return lease


def test_first_come_first_served_and_cameras_before_backfill(run: Callable[..., None]) -> None:
    async def body(queue: Queue, other: Queue) -> None:
        for name in ("old-1", "old-2"):
            await queue.put(name, "backfill")
        for name in ("new-1", "new-2"):
            await other.put(name, "camera")
        assert [lease.id for lease in await queue.take(3, 0)] == ["new-1", "new-2", "old-1"]
        assert [lease.id for lease in await other.take(3, 0)] == ["old-2"]
        assert await queue.take(3, 0) == []

    run(body)


def test_an_id_is_held_once(run: Callable[..., None]) -> None:
    async def body(queue: Queue, other: Queue) -> None:
        assert await queue.put("a")
        assert not await other.put("a")
        lease = await one(queue)
        assert not await other.put("a")  # leased is held, too
        assert await queue.done(lease)
        assert await other.put("a")

    run(body)


@pytest.mark.promise(7)
def test_a_dead_workers_job_comes_again_and_a_live_ones_does_not(run: Callable[..., None]) -> None:
    async def body(queue: Queue, other: Queue) -> None:
        for name in ("dead", "alive"):
            await queue.put(name)
        dead, alive = await queue.take(2, 0)
        for _ in range(12):  # half as long again as a lease
            await asyncio.sleep(RENEWED_S / 8)
            await queue.renew(alive)
        again = await one(other)
        assert (again.id, again.attempt) == ("dead", 2)
        with pytest.raises(LeaseLost):
            await queue.renew(dead)
        assert not await queue.done(dead)
        assert await other.done(again)
        assert await queue.done(alive)

    run(body, RENEWED_S)


def test_taking_waits_for_what_comes(run: Callable[..., None]) -> None:
    async def body(queue: Queue, other: Queue) -> None:
        taking = asyncio.create_task(queue.take(5, 5.0))
        await asyncio.sleep(0.1)
        assert not taking.done()
        await other.put("late", "backfill")
        assert [lease.id for lease in await taking] == ["late"]

    run(body)


@pytest.mark.promise(7)
def test_a_waiting_worker_takes_over_from_a_dead_one(run: Callable[..., None]) -> None:
    async def body(queue: Queue, other: Queue) -> None:
        await queue.put("a")
        await queue.take(1, 0)
        lease = await one(other, wait_s=30)
        assert (lease.id, lease.attempt) == ("a", 2)

    run(body, SHORT_S)


def test_what_is_released_comes_at_once_and_the_attempt_does_not_count(run: Callable[..., None]) -> None:
    async def body(queue: Queue, other: Queue) -> None:
        for name in ("a", "b"):
            await queue.put(name)
        lease = await one(queue)
        assert await queue.release(lease)
        assert not await queue.release(lease)
        assert [(lease.id, lease.attempt) for lease in await other.take(2, 0)] == [("a", 1), ("b", 1)]

    run(body)


def test_the_buried_stays_away_and_is_listed(run: Callable[..., None]) -> None:
    async def body(queue: Queue, other: Queue) -> None:
        await queue.put("bad")
        lease = await one(queue)
        assert await queue.bury(lease, "kills its worker")
        assert not await queue.bury(lease, "twice")
        await asyncio.sleep(1.5 * SHORT_S)
        assert await other.take(1, 0) == []
        assert list(await other.dead()) == [("bad", "kills its worker")]
        assert (await other.depth()).leased == 0

    run(body, SHORT_S)


def test_depth_counts_what_waits_and_what_is_leased(run: Callable[..., None]) -> None:
    async def body(queue: Queue, other: Queue) -> None:
        assert await queue.depth() == Depth(0, 0, 0.0)
        for name in "abc":
            await queue.put(name)
        lease = await one(queue)
        await asyncio.sleep(0.15)
        found = await other.depth()
        assert (found.waiting, found.leased) == (2, 1)
        assert 0.1 < found.oldest_s < 60
        await queue.release(lease)
        assert ((await other.depth()).waiting, (await other.depth()).leased) == (3, 0)

    run(body)


def test_many_workers_never_share_a_job(run: Callable[..., None]) -> None:
    async def body(queue: Queue, other: Queue) -> None:
        names = {f"job-{i}" for i in range(60)}
        for name in sorted(names):
            await queue.put(name)
        seen: list[str] = []

        async def work(end: Queue) -> None:
            while leases := await end.take(3, 0):
                for lease in leases:
                    seen.append(lease.id)
                    assert await end.done(lease)

        await asyncio.gather(*(work(end) for end in (queue, other) for _ in range(3)))
        assert sorted(seen) == sorted(names)

    run(body)


def test_a_worker_that_is_woken_stops_waiting_and_loses_nothing(run: Callable[..., None]) -> None:
    async def body(queue: Queue, other: Queue) -> None:
        waiting = asyncio.create_task(queue.take(1, 20))
        deadline = asyncio.get_running_loop().time() + 10  # a wait that is not cut off takes 20 s
        while not waiting.done():
            assert asyncio.get_running_loop().time() < deadline
            queue.wake()
            await asyncio.sleep(0.01)
        assert waiting.result() == []
        await other.put("a")
        assert (await one(queue, 5)).id == "a"

    run(body)
