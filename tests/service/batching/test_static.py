"""What is special to static batches: one profile, a bounded size, a bounded delay."""

import asyncio
import time

from service.batching import Job
from tests.service.batching.engines import image, running
from tests.service.conftest import PixelEngine


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


def test_a_lone_image_waits_for_the_delay_only() -> None:
    async def run() -> float:
        async with running("static", PixelEngine(), batch_delay_s=0.05) as batcher:
            started = time.monotonic()
            finished = await batcher.submit(Job("1", image(1), 1, "fast"))
            assert 0.04 < finished.queue_s < 0.5
            return time.monotonic() - started

    assert asyncio.run(run()) < 0.6
