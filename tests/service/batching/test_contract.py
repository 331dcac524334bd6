"""What both batchers promise: order, isolation, deadlines, cancellation, drain."""

import asyncio
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.samplers import Cancelled
from service.batching import ContinuousBatcher, Expired, Job, StaticBatcher, open_batching, stepwise
from service.batching.job import Ticket
from service.batching.stepwise import run_together
from service.metrics import Metrics
from tests.service.batching.engines import Kind, image, running
from tests.service.conftest import PixelEngine
from tests.undisturbed import least

both = pytest.mark.parametrize("kind", ["continuous", "static"])


def job(value: int, profile: str = "fast", **more: Any) -> Job:
    return Job(str(value), image(value), value, profile, **more)


@pytest.mark.promise(5)
@both
@settings(max_examples=15, deadline=None)
@given(values=st.lists(st.integers(0, 250), min_size=1, max_size=40), size=st.integers(1, 9))
def test_results_are_never_swapped(kind: Kind, values: list[int], size: int) -> None:
    assert scores_of(kind, PixelEngine(), values, size) == values


def scores_of(kind: Kind, engine: PixelEngine, values: list[int], size: int) -> list[float]:
    """What each image, whose score is its value, is told."""

    async def run() -> list[float]:
        async with running(kind, engine, batch_size=size, batch_delay_s=0.001) as batcher:
            profiles, priorities = ["fast", "paper"], ["camera", "camera", "backfill"]
            jobs = [job(v, profiles[v % 2], priority=priorities[v % 3]) for v in values]
            done = await asyncio.gather(*(batcher.submit(one) for one in jobs))
            return [finished.result.score for finished in done]

    return asyncio.run(run())


@pytest.mark.promise(5, control=True)
@both
def test_exchanged_results_would_be_noticed(kind: Kind) -> None:
    class Reversed(PixelEngine):
        def run(self, *args: Any) -> list[Any]:
            return super().run(*args)[::-1]

    values = [0, 6, 12, 18, 24]  # of one profile
    told = scores_of(kind, Reversed(), values, 3)
    assert sorted(told) == values
    assert told != values


@pytest.mark.promise(6)
@both
def test_one_poisonous_image_fails_alone(kind: Kind) -> None:
    engine = PixelEngine(poison=2)
    outcomes = outcomes_of(kind, engine, [9, 1, 2, 3, 4])
    assert failed(outcomes) == [False, False, True, False, False]
    assert [o.result.score for o in outcomes if not isinstance(o, Exception)] == [9, 1, 3, 4]
    assert any(2 in values and len(values) > 1 for _, values in engine.batches)


def outcomes_of(kind: Kind, engine: PixelEngine, values: list[int]) -> list[Any]:
    """What each image is told, when the engine takes up all but the first together."""
    engine.go.clear()

    async def run() -> list[Any]:
        async with running(kind, engine, batch_delay_s=0.2) as batcher:
            jobs = [asyncio.create_task(batcher.submit(job(v))) for v in values]
            await asyncio.sleep(0.05)
            engine.go.set()
            return await asyncio.gather(*jobs, return_exceptions=True)

    return asyncio.run(run())


def failed(outcomes: list[Any]) -> list[bool]:
    return [type(outcome) is RuntimeError for outcome in outcomes]


@pytest.mark.promise(6, control=True)
@both
def test_a_batch_that_fails_as_one_would_be_noticed(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_all(self: Any, tasks: Any, should_stop: Any) -> None:
        try:
            results: list[Any] = list(run_together(self._engine, tasks, should_stop))
        except RuntimeError as error:
            results = [error] * len(tasks)
        for task, result in zip(tasks, results, strict=True):
            task.outcome = result

    async def fail_batch(self: StaticBatcher, batch: Any) -> list[Any]:
        loop = asyncio.get_running_loop()
        try:
            return list(await loop.run_in_executor(self._thread, self._call, batch))
        except RuntimeError as error:
            return [error] * len(batch)

    monkeypatch.setattr(stepwise._WholeImages, "_run", fail_all)
    monkeypatch.setattr(StaticBatcher, "_run_batch", fail_batch)
    outcomes = outcomes_of(kind, PixelEngine(poison=2), [9, 1, 2, 3, 4])
    assert failed(outcomes)[2]
    assert sum(failed(outcomes)) > 1


@both
def test_an_engine_that_loses_rows_fails_them(kind: Kind) -> None:
    class Short(PixelEngine):
        def run(self, *args: Any) -> list[Any]:
            return super().run(*args)[:-1]

    async def run() -> list[Any]:
        async with running(kind, Short()) as batcher:
            return await asyncio.gather(*(batcher.submit(job(v)) for v in (1, 2)), return_exceptions=True)

    assert all(isinstance(outcome, RuntimeError) for outcome in asyncio.run(run()))


@pytest.mark.promise(15)
@both
def test_warm_up_runs_one_image_and_a_full_batch(kind: Kind) -> None:
    engine = PixelEngine()

    async def run() -> None:
        async with running(kind, engine) as batcher:
            await batcher.warm_up("paper")

    asyncio.run(run())
    assert [(profile, len(values)) for profile, values in engine.batches] == [("paper", 1), ("paper", 4)]


@pytest.mark.promise(15, control=True)
@both
def test_a_model_that_does_not_run_is_found_out_by_warm_up(kind: Kind) -> None:
    async def run() -> None:
        async with running(kind, PixelEngine(poison=128)) as batcher:
            await batcher.warm_up("paper")

    with pytest.raises(RuntimeError, match="poisonous"):
        asyncio.run(run())


@both
def test_nobody_waits_for_a_batcher_that_has_ended(kind: Kind) -> None:
    """A job whose preprocessing outlasted the grace period must not keep the process from ending."""

    async def run() -> None:
        batcher = open_batching(kind, PixelEngine(), Metrics(), batch_size=2, batch_delay_s=0)
        assert batcher.healthy
        await batcher.close(0.1)
        assert not batcher.healthy
        with pytest.raises(Cancelled):
            await asyncio.wait_for(batcher.submit(job(1)), 5)

    asyncio.run(run())


@pytest.mark.promise(13)
@both
def test_close_drains_within_grace_and_cancels_after(kind: Kind) -> None:
    engine = PixelEngine(delay_s=0.02)

    async def drain(grace_s: float, hold: bool) -> list[Any]:
        batcher = open_batching(kind, engine, Metrics(), batch_size=2, batch_delay_s=1)
        if hold:
            engine.go.clear()
        jobs = [asyncio.create_task(batcher.submit(job(v))) for v in range(6)]
        await asyncio.sleep(0.01)
        await batcher.close(grace_s)
        assert not batcher.healthy
        return await asyncio.gather(*jobs, return_exceptions=True)

    assert [done.result.score for done in asyncio.run(drain(5, hold=False))] == list(range(6))
    outcomes = asyncio.run(drain(0.05, hold=True))
    assert any(isinstance(outcome, Cancelled) for outcome in outcomes)


@pytest.mark.promise(11)
@both
def test_a_deadline_is_kept_while_the_engine_is_busy(kind: Kind) -> None:
    ran: list[list[list[int]]] = []
    assert 0 <= least(lambda: late_s(kind, ran), 0.9) < 1
    assert all(batches == [[1], [5]] for batches in ran)  # what expired was never run


def late_s(kind: Kind, ran: list[list[list[int]]]) -> float:
    """How long after their deadline two images are told, while the engine is busy for 1.5 s.

    Its batches are added to `ran`.
    """
    engine = PixelEngine()
    engine.go.clear()

    async def run() -> float:
        async with running(kind, engine, batch_size=1, batch_delay_s=0) as batcher:
            busy = asyncio.create_task(batcher.submit(job(1)))
            await asyncio.sleep(0.05)
            asyncio.get_running_loop().call_later(1.5, engine.go.set)
            deadline = time.monotonic() + 0.2
            jobs = [batcher.submit(job(v, deadline=deadline)) for v in (2, 3)]
            outcomes = await asyncio.gather(*jobs, return_exceptions=True)
            late_s = time.monotonic() - deadline
            assert all(isinstance(outcome, Expired) for outcome in outcomes)
            engine.go.set()
            assert (await busy).result.score == 1
            with pytest.raises(Expired):
                await batcher.submit(job(4, deadline=time.monotonic() - 1))
            finished = await batcher.submit(job(5, deadline=time.monotonic() + 60))
            assert finished.result.score == 5
            return late_s

    late = asyncio.run(run())
    ran.append([values for _, values in engine.batches])
    return late


@pytest.mark.promise(11, control=True)
@both
def test_looking_at_deadlines_only_after_runs_would_be_noticed(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = Ticket.answer

    def answer_or_expire(self: Ticket, result: Any, finished_at: float) -> None:
        if self.job.deadline is not None and time.monotonic() > self.job.deadline:
            self.fail(Expired("its deadline had passed"))
        answer(self, result, finished_at)

    monkeypatch.setattr(Ticket, "answer", answer_or_expire)
    monkeypatch.setattr(Ticket, "expiry", lambda self: lambda: None)
    assert late_s(kind, []) > 1


@pytest.mark.promise(11)
@both
def test_a_cancelled_job_that_waits_is_never_run(kind: Kind) -> None:
    assert ran_although_cancelled(kind) == [[1], [3]]


@pytest.mark.promise(11, control=True)
@both
def test_a_batcher_that_keeps_who_has_left_would_be_noticed(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    for batcher in (ContinuousBatcher, StaticBatcher):
        monkeypatch.setattr(batcher, "_leave", lambda self, ticket: None)
    assert [2] in ran_although_cancelled(kind)


def ran_although_cancelled(kind: Kind) -> list[list[int]]:
    """The batches of three images, the second of which is cancelled while it waits."""
    engine = PixelEngine()
    engine.go.clear()

    async def run() -> None:
        async with running(kind, engine, batch_size=1, batch_delay_s=0) as batcher:
            jobs = [asyncio.create_task(batcher.submit(job(v))) for v in (1, 2, 3)]
            await asyncio.sleep(0.05)
            jobs[1].cancel()
            await asyncio.sleep(0)
            engine.go.set()
            outcomes = await asyncio.gather(*jobs, return_exceptions=True)
            assert isinstance(outcomes[1], asyncio.CancelledError)

    asyncio.run(run())
    return [values for _, values in engine.batches]


@both
def test_cameras_go_before_backfill(kind: Kind) -> None:
    engine = PixelEngine()
    engine.go.clear()

    async def run() -> None:
        async with running(kind, engine, batch_size=1, batch_delay_s=0) as batcher:
            jobs = [asyncio.create_task(batcher.submit(job(1)))]
            await asyncio.sleep(0.05)
            asked = [job(v, priority="backfill") for v in (2, 3)] + [job(v) for v in (4, 5, 6)]
            jobs += [asyncio.create_task(batcher.submit(one)) for one in asked]
            await asyncio.sleep(0.05)
            engine.go.set()
            await asyncio.gather(*jobs)

    asyncio.run(run())
    assert [values for _, values in engine.batches] == [[1], [4], [5], [6], [2], [3]]


@both
def test_an_ignore_mask_goes_with_its_image(kind: Kind) -> None:
    class Masking(PixelEngine):
        def run(self, images: Any, seeds: Any, profile: Any, stop: Any = None, ignore: Any = None) -> Any:
            masks = ignore or [None] * len(images)
            seen.extend((seed, mask is not None) for seed, mask in zip(seeds, masks, strict=True))
            return super().run(images, seeds, profile, stop)

    seen: list[tuple[int, bool]] = []
    mask: NDArray[np.bool_] = np.zeros((4, 4), dtype=np.bool_)

    async def run() -> None:
        async with running(kind, Masking()) as batcher:
            jobs = [job(v, ignore=mask if v % 2 else None) for v in range(6)]
            await asyncio.gather(*(batcher.submit(one) for one in jobs))

    asyncio.run(run())
    assert sorted(seen) == [(v, v % 2 == 1) for v in range(6)]


@both
def test_the_metrics_count_every_image_of_a_call(kind: Kind) -> None:
    engine, metrics = PixelEngine(), Metrics()

    async def run() -> None:
        async with running(kind, engine, metrics=metrics, batch_size=2, batch_delay_s=0) as batcher:
            await asyncio.gather(*(batcher.submit(job(v)) for v in range(3)))

    asyncio.run(run())
    assert metrics.registry.get_sample_value("inlier_batch_size_sum") == 3
