"""Batches: order, bounds, isolation, drain. The id of an image is the value of its pixels."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.samplers import Cancelled
from service.batching import Job, StaticBatcher
from service.errors import InspectionError
from service.metrics import Metrics
from tests.service.conftest import SIZE, PixelEngine


def image(value: int) -> NDArray[np.float32]:
    return np.full((3, SIZE, SIZE), value / 127.5 - 1, dtype=np.float32)


@asynccontextmanager
async def running(engine: PixelEngine, **options: Any) -> AsyncIterator[StaticBatcher]:
    defaults = {"queue_size": 64, "batch_size": 4, "batch_delay_s": 0.01}
    batcher = StaticBatcher(engine, Metrics(), **{**defaults, **options})
    try:
        yield batcher
    finally:
        engine.go.set()
        await batcher.close(5)


@hypothesis_settings(max_examples=15, deadline=None)
@given(values=st.lists(st.integers(0, 250), min_size=1, max_size=40), size=st.integers(1, 9))
def test_results_are_never_swapped(values: list[int], size: int) -> None:
    async def run() -> list[float]:
        async with running(PixelEngine(), batch_size=size, batch_delay_s=0.001) as batcher:
            profiles = ["fast", "paper"]
            jobs = [batcher.submit(Job(str(v), image(v), v, profiles[v % 2])) for v in values]
            return [finished.result.score for finished in await asyncio.gather(*jobs)]

    assert asyncio.run(run()) == values


def test_a_batch_has_one_profile_and_is_bounded() -> None:
    engine = PixelEngine()
    engine.go.clear()

    async def run() -> None:
        async with running(engine) as batcher:
            jobs = [
                asyncio.create_task(
                    batcher.submit(Job(str(v), image(v), v, "paper" if v % 3 == 0 else "fast"))
                )
                for v in range(12)
            ]
            await asyncio.sleep(0.05)
            engine.go.set()
            await asyncio.gather(*jobs)

    asyncio.run(run())
    assert all(len(values) <= 4 for _, values in engine.batches)
    assert all(profile == ("paper" if v % 3 == 0 else "fast") for profile, vs in engine.batches for v in vs)
    assert len(engine.batches) == 3  # 4 of paper, 8 of fast: as full as can be


def test_a_lone_image_waits_for_the_delay_only() -> None:
    async def run() -> float:
        async with running(PixelEngine(), batch_delay_s=0.05) as batcher:
            started = time.monotonic()
            finished = await batcher.submit(Job("1", image(1), 1, "fast"))
            assert 0.04 < finished.queue_s < 0.5
            return time.monotonic() - started

    assert asyncio.run(run()) < 0.6


def test_one_poisonous_image_fails_alone() -> None:
    engine = PixelEngine(poison=2)

    async def run() -> list[Any]:
        async with running(engine, batch_delay_s=0.2) as batcher:
            jobs = [batcher.submit(Job(str(v), image(v), v, "fast")) for v in (1, 2, 3, 4)]
            return await asyncio.gather(*jobs, return_exceptions=True)

    outcomes = asyncio.run(run())
    assert [type(o) is RuntimeError for o in outcomes] == [False, True, False, False]
    assert [o.result.score for o in outcomes if not isinstance(o, Exception)] == [1, 3, 4]
    assert engine.batches[0][1] == [1, 2, 3, 4]


def test_an_engine_that_loses_rows_fails_them() -> None:
    class Short(PixelEngine):
        def run(self, *args: Any) -> list[Any]:
            return super().run(*args)[:-1]

    async def run() -> list[Any]:
        async with running(Short(), batch_delay_s=0.05) as batcher:
            jobs = [batcher.submit(Job(str(v), image(v), v, "fast")) for v in (1, 2)]
            return await asyncio.gather(*jobs, return_exceptions=True)

    assert all(isinstance(outcome, RuntimeError) for outcome in asyncio.run(run()))


def test_the_bound_and_retry_after_from_the_measured_rate() -> None:
    engine = PixelEngine(delay_s=0.2)

    async def run() -> None:
        async with running(engine, queue_size=10, batch_size=1, batch_delay_s=0) as batcher:
            await batcher.submit(Job("0", image(0), 0, "fast"))  # measures about 0.2 s an image
            places = [batcher.place() for _ in range(10)]
            for place in places:
                place.__enter__()
            with pytest.raises(InspectionError) as refused:
                batcher.check_room()
            assert refused.value.status == 503
            assert 1.5 < (refused.value.retry_after_s or 0) < 6
            places[0].__exit__(None, None, None)
            batcher.check_room()

    asyncio.run(run())


def test_warm_up_runs_one_image_and_a_full_batch() -> None:
    engine = PixelEngine()

    async def run() -> None:
        async with running(engine) as batcher:
            await batcher.warm_up("paper")

    asyncio.run(run())
    assert [(profile, len(values)) for profile, values in engine.batches] == [("paper", 1), ("paper", 4)]


def test_nobody_waits_for_a_batcher_that_has_ended() -> None:
    """A job whose preprocessing outlasted the grace period must not keep the process from ending."""

    async def run() -> None:
        batcher = StaticBatcher(PixelEngine(), Metrics(), queue_size=4, batch_size=2, batch_delay_s=0)
        await batcher.close(0.1)
        with pytest.raises(Cancelled):
            await asyncio.wait_for(batcher.submit(Job("1", image(1), 1, "fast")), 5)

    asyncio.run(run())


def test_close_drains_within_grace_and_cancels_after() -> None:
    engine = PixelEngine(delay_s=0.02)

    async def drain(grace_s: float, hold: bool) -> list[Any]:
        batcher = StaticBatcher(engine, Metrics(), queue_size=64, batch_size=2, batch_delay_s=1)
        jobs = [asyncio.create_task(batcher.submit(Job(str(v), image(v), v, "fast"))) for v in range(6)]
        await asyncio.sleep(0.01)
        if hold:
            engine.go.clear()
        await batcher.close(grace_s)
        with pytest.raises(InspectionError, match="stopping"):
            batcher.check_room()
        return await asyncio.gather(*jobs, return_exceptions=True)

    assert [done.result.score for done in asyncio.run(drain(5, hold=False))] == list(range(6))
    outcomes = asyncio.run(drain(0.05, hold=True))
    assert any(isinstance(outcome, Cancelled) for outcome in outcomes)
