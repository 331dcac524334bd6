"""What only continuous batching does: images come, go and give way between any two calls."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from statistics import fmean, median
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.samplers import Cancelled
from service.batching import ContinuousBatcher, Expired, Finished, Job
from service.batching.turns import Turns
from tests.service.batching.engines import StepEngine, image, running
from tests.undisturbed import least

Outcome = Finished | BaseException


def job(value: int, profile: str = "paper", **more: Any) -> Job:
    return Job(str(value), image(value), value, profile, **more)


async def until(condition: Any, limit_s: float = 10.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        await asyncio.sleep(0.001)


def start(work: Coroutine[Any, Any, Finished]) -> "asyncio.Task[Finished]":
    return asyncio.create_task(work)


def test_an_image_that_arrives_while_a_chain_runs_is_not_held_up_by_it() -> None:
    engine = StepEngine(long=250)
    engine.pause_in(3)

    async def run() -> None:
        async with running("continuous", engine) as batcher:
            chain = start(batcher.submit(job(1, "long")))
            await until(lambda: not engine.go.is_set())
            late = start(batcher.submit(job(2, "fast")))
            await asyncio.sleep(0)  # it is in the queue
            engine.go.set()
            assert (await late).result.score == 2
            assert (await chain).result.score == 1

    asyncio.run(run())
    assert engine.spent == {1: 250, 2: 1}
    assert any(2 in values for values in engine.calls[:100])


def test_profiles_and_steps_share_calls() -> None:
    engine = StepEngine()
    engine.go.clear()

    async def run() -> None:
        async with running("continuous", engine, batch_size=3) as batcher:
            jobs = [start(batcher.submit(job(1)))]
            await until(lambda: engine.masks != {})
            jobs += [start(batcher.submit(job(v, profile))) for v, profile in ((2, "fast"), (3, "paper"))]
            await asyncio.sleep(0.05)
            engine.go.set()
            await asyncio.gather(*jobs)

    asyncio.run(run())
    assert [sorted(values) for values in engine.calls[:2]] == [[1], [1, 2, 3]]
    assert engine.spent == {1: 5, 2: 1, 3: 5}


@pytest.mark.promise(11)
@pytest.mark.parametrize("how", ["cancelled", "expired"])
def test_who_is_no_longer_waited_for_leaves_within_one_step(how: str) -> None:
    when, spent = steps_after_leaving(how)
    assert spent <= when + 1  # at most the call that was under way


@pytest.mark.promise(11, control=True)
@pytest.mark.parametrize("how", ["cancelled", "expired"])
def test_an_image_that_stays_in_the_engine_would_be_noticed(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ContinuousBatcher, "_leave", lambda self, ticket: None)
    when, spent = steps_after_leaving(how)
    assert spent > when + 1


def steps_after_leaving(how: str) -> tuple[int, int]:
    """Calls for an image when its submitter left, and when another one has had five more since."""
    engine = StepEngine(delay_s=0.01, long=250)

    async def run() -> tuple[int, int]:
        async with running("continuous", engine) as batcher:
            deadline = time.monotonic() + 0.5 if how == "expired" else None
            leaving = start(batcher.submit(job(1, "long", deadline=deadline)))
            staying = start(batcher.submit(job(2, "long")))
            await until(lambda: engine.spent[1] > 2 or leaving.done())
            if how == "cancelled":
                leaving.cancel()
            (outcome,) = await asyncio.gather(leaving, return_exceptions=True)
            assert isinstance(outcome, Expired if how == "expired" else asyncio.CancelledError)
            when = engine.spent[1]
            await until(lambda: engine.spent[2] > when + 5)
            staying.cancel()
            return when, engine.spent[1]

    return asyncio.run(run())


@pytest.mark.promise(11)
def test_a_deadline_is_kept_to_a_second_in_the_middle_of_a_slow_call() -> None:
    async def run() -> float:
        async with running("continuous", StepEngine(delay_s=1.5)) as batcher:
            deadline = time.monotonic() + 0.2
            with pytest.raises(Expired):
                await batcher.submit(job(1, deadline=deadline))
            return time.monotonic() - deadline

    assert 0 <= least(lambda: asyncio.run(run()), 0.9) < 1


def test_a_camera_displaces_backfill_which_goes_on_where_it_was() -> None:
    engine = StepEngine(long=40)
    engine.pause_in(8)
    ends: list[float] = []

    async def run() -> list[float]:
        async with running("continuous", engine, batch_size=2) as batcher:
            slow = [start(batcher.submit(job(v, "long", priority="backfill"))) for v in (1, 2)]
            await until(lambda: not engine.go.is_set())
            camera = start(batcher.submit(job(3)))
            for task in (*slow, camera):
                task.add_done_callback(lambda done: ends.append(done.result().result.score))
            await asyncio.sleep(0)  # it is in the queue
            engine.go.set()
            assert (await camera).result.score == 3
            return [finished.result.score for finished in await asyncio.gather(*slow)]

    assert asyncio.run(run()) == [1, 2]
    assert ends[0] == 3
    assert engine.spent == {1: 40, 2: 40, 3: 5}  # nothing was done twice
    with_camera = [index for index, values in enumerate(engine.calls) if 3 in values]
    assert with_camera[-1] - with_camera[0] <= 5  # backfill took at most one of its calls


def test_backfill_gets_its_share_from_cameras_that_never_cease() -> None:
    engine = StepEngine(delay_s=0.001)

    async def run() -> int:
        async with running("continuous", engine, batch_size=1) as batcher:
            backfill = start(batcher.submit(job(250, priority="backfill")))
            cameras: set[asyncio.Task[Finished]] = set()
            served = 0
            while not backfill.done():
                while len(cameras) < 4:
                    cameras.add(start(batcher.submit(job(served % 200))))
                done, cameras = await asyncio.wait(cameras, return_when=asyncio.FIRST_COMPLETED)
                served += len(done)
                assert served < 40, "backfill starves"
            await asyncio.gather(*cameras)
            return served

    assert asyncio.run(run()) >= 1
    assert engine.spent[250] == 5


@pytest.mark.promise(6)
def test_one_poisonous_image_fails_alone_in_the_middle_of_others() -> None:
    engine = StepEngine(poison=3)

    async def run() -> list[Outcome]:
        async with running("continuous", engine) as batcher:
            jobs = [batcher.submit(job(v)) for v in (1, 2, 3, 4)]
            return await asyncio.gather(*jobs, return_exceptions=True)

    outcomes = asyncio.run(run())
    assert [isinstance(one, RuntimeError) for one in outcomes] == [False, False, True, False]
    assert engine.spent[3] == 1


def test_an_engine_that_fails_as_a_whole_fails_who_was_in_it_and_goes_on() -> None:
    engine, broken = StepEngine(), [True]

    def fail_once(call: int) -> None:
        if broken:
            broken.pop()
            raise MemoryError("out of memory")

    engine.on_call = fail_once

    async def run() -> None:
        async with running("continuous", engine) as batcher:
            with pytest.raises(MemoryError):
                await batcher.submit(job(1))
            assert (await batcher.submit(job(2))).result.score == 2
            assert batcher.healthy

    asyncio.run(run())


def test_a_warm_up_that_is_given_up_harms_nobody() -> None:
    engine = StepEngine()
    engine.go.clear()

    async def run() -> None:
        async with running("continuous", engine) as batcher:
            busy = start(batcher.submit(job(1, "fast")))
            await until(lambda: engine.masks != {})
            rehearsal = asyncio.create_task(batcher.warm_up("fast"))
            await asyncio.sleep(0.01)
            rehearsal.cancel()
            with pytest.raises(asyncio.CancelledError):
                await rehearsal  # the engine thread, still in its call, can no longer take it up
            engine.go.set()
            assert (await busy).result.score == 1
            assert (await batcher.submit(job(2))).result.score == 2
        with pytest.raises(Cancelled):
            await asyncio.wait_for(batcher.warm_up("fast"), 5)

    asyncio.run(run())
    assert 128 not in engine.spent  # the value of a blank image


@pytest.mark.promise(12)
def test_slots_are_filled_at_saturation(record_property: Callable[[str, object], None]) -> None:
    filled = filled_at_saturation()
    record_property("filled at saturation", f"{filled:.0%}")
    assert filled >= 0.8


@pytest.mark.promise(12, control=True)
def test_images_run_one_by_one_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Turns, "choose", lambda self, waiting, seconds: [0])
    assert filled_at_saturation() < 0.8


def filled_at_saturation() -> float:
    """The share of places that calls fill while 120 images wait."""
    engine = StepEngine(delay_s=0.001)

    async def run() -> None:
        async with running("continuous", engine, batch_size=8) as batcher:
            await asyncio.gather(*(batcher.submit(job(v)) for v in range(120)))

    asyncio.run(run())
    return fmean(len(values) for values in engine.calls) / 8


@pytest.mark.promise(12)
def test_a_lone_image_does_not_wait(record_property: Callable[[str, object], None]) -> None:
    async def run() -> list[float]:
        async with running("continuous", StepEngine()) as batcher:
            return [(await batcher.submit(job(v, "fast"))).queue_s for v in range(30)]

    median_s = least(lambda: median(asyncio.run(run())), 0.019)
    record_property("a lone image waits (median)", f"{1000 * median_s:.1f} ms")
    assert median_s < 0.02


def test_the_event_loop_is_free_while_the_engine_works() -> None:
    async def run() -> float:
        async with running("continuous", StepEngine(delay_s=0.5)) as batcher:
            work = start(batcher.submit(job(1, "fast")))
            longest, last = 0.0, time.monotonic()
            while not work.done():
                await asyncio.sleep(0.005)
                longest, last = max(longest, time.monotonic() - last), time.monotonic()
            return longest

    assert least(lambda: asyncio.run(run()), 0.39) < 0.4


lives = st.fixed_dictionaries(
    {
        "after_ms": st.integers(0, 20),
        "profile": st.sampled_from(["fast", "paper"]),
        "priority": st.sampled_from(["camera", "backfill"]),
        "end": st.sampled_from(["waits", "waits", "waits", "cancelled", "expires"]),
        "patience_ms": st.integers(0, 15),
    }
)


@pytest.mark.promise(2)
@pytest.mark.promise(5)
@settings(max_examples=30, deadline=None)
@given(data=st.lists(lives, min_size=1, max_size=30), size=st.integers(1, 5), poison=st.integers(0, 30))
def test_whatever_comes_and_goes_every_image_ends_once_and_as_itself(
    data: list[dict[str, Any]], size: int, poison: int
) -> None:
    engine = StepEngine(delay_s=0.001, poison=poison)

    async def one(batcher: Any, value: int, life: dict[str, Any]) -> Outcome:
        await asyncio.sleep(life["after_ms"] / 1000)
        patience_s = life["patience_ms"] / 1000
        deadline = time.monotonic() + patience_s if life["end"] == "expires" else None
        work = start(
            batcher.submit(job(value, life["profile"], priority=life["priority"], deadline=deadline))
        )
        if life["end"] == "cancelled":
            await asyncio.sleep(patience_s)
            work.cancel()
        (outcome,) = await asyncio.gather(work, return_exceptions=True)
        return outcome

    async def run() -> list[Outcome]:
        async with running("continuous", engine, batch_size=size) as batcher:
            work = [one(batcher, value, life) for value, life in enumerate(data)]
            outcomes = await asyncio.wait_for(asyncio.gather(*work), 30)
            after = await asyncio.wait_for(batcher.submit(job(200)), 10)  # nobody left a slot blocked
            assert after.result.score == 200
            return outcomes

    for value, (life, outcome) in enumerate(zip(data, asyncio.run(run()), strict=True)):
        if isinstance(outcome, Finished):
            assert outcome.result.score == value
            np.testing.assert_array_equal(outcome.result.reconstruction, image(value))
            assert engine.spent[value] == engine.steps[life["profile"]]
        elif isinstance(outcome, RuntimeError):
            assert value == poison
        else:
            expected = {"cancelled": asyncio.CancelledError, "expires": Expired}
            assert isinstance(outcome, expected[life["end"]])
    assert max(len(values) for values in engine.calls) <= size
