"""What is special to static batches: one profile, a bounded size, a bounded delay."""

import asyncio
from collections.abc import Callable
from statistics import fmean, median

import pytest

from service.batching import Job, StaticBatcher
from service.batching.job import Ticket
from tests.service.batching.engines import image, running
from tests.service.conftest import PixelEngine
from tests.undisturbed import least


def test_a_batch_has_one_profile_and_is_bounded() -> None:
    engine = PixelEngine()
    engine.go.clear()

    async def run() -> None:
        async with running("static", engine) as batcher:
            kinds = ["paper", "fast", "fast"]
            asked = [Job(str(v), image(v), v, kinds[v % 3]) for v in range(12)]
            jobs = [asyncio.create_task(batcher.submit(job)) for job in asked]
            await asyncio.sleep(0.05)
            engine.go.set()
            await asyncio.gather(*jobs)

    asyncio.run(run())
    assert all(len(values) <= 4 for _, values in engine.batches)
    assert all(profile == ("paper" if v % 3 == 0 else "fast") for profile, vs in engine.batches for v in vs)
    assert len(engine.batches) == 3  # 4 of paper, 8 of fast: as full as can be


DELAY_S, MORE_S = 0.05, 0.02


@pytest.mark.promise(12)
def test_a_lone_image_waits_for_the_delay_only(record_property: Callable[[str, object], None]) -> None:
    waited_s = least(lone_wait_s, DELAY_S + MORE_S)
    record_property("a lone image waits for a static batch of 50 ms (median)", f"{1000 * waited_s:.1f} ms")
    assert 0.8 * DELAY_S < waited_s <= DELAY_S + MORE_S


@pytest.mark.promise(12, control=True)
def test_a_batch_that_waits_longer_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    form = StaticBatcher._next_batch

    async def dawdle(self: StaticBatcher) -> list[Ticket]:
        batch = await form(self)
        await asyncio.sleep(2 * MORE_S)
        return batch

    monkeypatch.setattr(StaticBatcher, "_next_batch", dawdle)
    assert lone_wait_s() > DELAY_S + MORE_S


def lone_wait_s() -> float:
    """The median of 15 images that come one after the other."""

    async def run() -> list[float]:
        async with running("static", PixelEngine(), batch_delay_s=DELAY_S) as batcher:
            return [(await batcher.submit(Job(str(v), image(v), v, "fast"))).queue_s for v in range(15)]

    return median(asyncio.run(run()))


@pytest.mark.promise(12)
def test_static_batches_are_full_at_saturation() -> None:
    engine = PixelEngine()

    async def run() -> None:
        async with running("static", engine) as batcher:
            jobs = [Job(str(v), image(v), v, "fast") for v in range(120)]
            await asyncio.gather(*(batcher.submit(job) for job in jobs))

    asyncio.run(run())
    assert fmean(len(values) for _, values in engine.batches) >= 0.8 * 4
