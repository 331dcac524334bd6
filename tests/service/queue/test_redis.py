"""What only a Redis can do to us: forget everything, go away and come back."""

import asyncio
import secrets
import time
from collections.abc import Iterator

import pytest

from service.queue.base import QueueUnavailable
from service.queue.bell import RedisBell
from service.queue.streams import StreamQueue, connect
from tests.service.queue.conftest import PrivateRedis

LEASE_S = 0.4


@pytest.fixture
def server(redis_server: PrivateRedis) -> Iterator[PrivateRedis]:
    """The session's server, running again afterwards whatever a test did to it."""
    yield redis_server
    redis_server.stop()
    redis_server.start()


def new_queue(server: PrivateRedis) -> StreamQueue:
    return StreamQueue(server.url, LEASE_S, secrets.token_hex(4))


@pytest.mark.promise(8)
def test_a_flushed_redis_is_set_up_again(server: PrivateRedis) -> None:
    async def main() -> None:
        queue = new_queue(server)
        await queue.open()
        await queue.put("lost")
        await queue.put("leased")
        (lease,) = await queue.take(1, 0)
        client = connect(server.url, 1)
        await client.flushall()
        await client.aclose()
        assert not await queue.done(lease)
        assert (await queue.depth()).waiting == 0
        assert await queue.put("lost")  # as the sweeper does
        assert [found.id for found in await queue.take(2, 0)] == ["lost"]
        await queue.close()

    asyncio.run(main())


@pytest.mark.promise(8)
def test_a_redis_that_is_down_says_so_and_works_again_when_it_is_back(server: PrivateRedis) -> None:
    async def main() -> None:
        queue = new_queue(server)
        await queue.open()
        server.stop()
        for attempt in (queue.put("a"), queue.take(1, 0), queue.depth(), queue.open()):
            with pytest.raises(QueueUnavailable):
                await attempt
        server.start()
        assert await queue.put("a")
        assert [lease.id for lease in await queue.take(1, 1.0)] == ["a"]
        await queue.close()

    asyncio.run(main())


@pytest.mark.promise(8)
def test_a_take_that_waits_while_redis_dies_ends(server: PrivateRedis) -> None:
    async def main() -> None:
        queue = new_queue(server)
        await queue.open()
        taking = asyncio.create_task(queue.take(1, 60))
        await asyncio.sleep(0.1)
        server.stop()
        with pytest.raises(QueueUnavailable):
            await asyncio.wait_for(taking, 10)
        await queue.close()

    asyncio.run(main())


def test_a_bell_is_heard_in_another_process_and_after_an_outage(server: PrivateRedis) -> None:
    async def main() -> None:
        namespace = secrets.token_hex(4)
        api, worker = RedisBell(server.url, namespace), RedisBell(server.url, namespace)
        heard: list[str] = []
        api.listen(heard.append)

        async def until_heard(identifier: str) -> None:
            while identifier not in heard:
                await worker.ring([identifier, "another"])
                await asyncio.sleep(0.05)

        await asyncio.wait_for(until_heard("first"), 10)
        assert "another" in heard
        server.stop()
        await worker.ring(["missed"])  # said in the log, and nobody fails
        server.start()
        await asyncio.wait_for(until_heard("second"), 10)
        assert "missed" not in heard
        await api.close()
        await worker.close()

    asyncio.run(main())


def test_a_bell_ends_whatever_it_is_doing(server: PrivateRedis) -> None:
    """Redis' client loses a cancellation that comes together with an answer."""

    async def main() -> None:
        for steps in range(0, 25, 2):
            bell = RedisBell(server.url)
            bell.listen(lambda _: None)
            for _ in range(steps):
                await asyncio.sleep(0)
            time.sleep(0.005)  # what it waits for arrives meanwhile
            await asyncio.wait_for(bell.close(), 10)

    asyncio.run(main())


def test_a_long_wait_is_cut_off_when_woken(server: PrivateRedis) -> None:
    """One command to Redis may wait for a quarter of the lease: here for 20 s."""

    async def main() -> None:
        queue = StreamQueue(server.url, 80, secrets.token_hex(4))
        await queue.open()
        waiting = asyncio.create_task(queue.take(1, 60))
        deadline = asyncio.get_running_loop().time() + 10
        while not waiting.done():
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.05)
            queue.wake()
        assert waiting.result() == []
        await queue.put("a")
        (lease,) = await queue.take(1, 10)
        assert await queue.done(lease)
        await queue.close()

    asyncio.run(main())
