"""Turns and costs together, on an engine whose calls take what its clock says they take: nothing is timed."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from service.batching.job import Job, Priority, Ticket
from service.batching.stepper import Stepper
from service.batching.turns import LOOK_EVERY
from service.metrics import Metrics
from tests.service.batching.engines import StepEngine, StepTask, image


class ClockedEngine(StepEngine):
    """Its calls take no time, but its clock says `fixed_s + each_s` for every image."""

    def __init__(self, fixed_s: float, each_s: float, **steps: int) -> None:
        super().__init__(**steps)
        self.fixed_s, self.each_s, self.now_s = fixed_s, each_s, 0.0

    def clock(self) -> float:
        return self.now_s

    def advance(self, tasks: Sequence[StepTask], should_stop: Callable[[], bool] | None = None) -> None:
        super().advance(tasks, should_stop)
        self.now_s += self.fixed_s + self.each_s * len(tasks)


class Line:
    """A stepper and what waits for it."""

    def __init__(self, engine: ClockedEngine, places: int = 8) -> None:
        self.engine = engine
        self.stepper = Stepper(engine, Metrics(), places, engine.clock)
        self.stepper.rehearse("long", engine.manifest.preprocess)
        engine.calls.clear()
        self.waiting: list[Ticket] = []
        self.ended: list[int] = []
        self.scores: dict[int, Any] = {}

    def add(self, *values: int, profile: str = "long", priority: Priority = "camera") -> None:
        loop = asyncio.new_event_loop()
        for value in values:
            job = Job(str(value), image(value), value, profile, priority)
            self.waiting.append(Ticket(job, loop.create_future()))
        loop.close()

    def call(self) -> list[int]:
        """The values that the next call advanced."""
        for ticket, outcome in self.stepper.step(self.waiting, lambda tickets: False).items():
            self.waiting.remove(ticket)
            self.ended.append(int(ticket.job.id))
            self.scores[int(ticket.job.id)] = outcome if isinstance(outcome, Exception) else outcome.score
        return self.engine.calls[-1] if self.engine.calls else []

    def run(self) -> None:
        while self.waiting:
            self.call()


def on_cpu(**steps: int) -> Line:
    return Line(ClockedEngine(0.0, 0.01, **{"long": 40, **steps}))


def on_gpu(**steps: int) -> Line:
    return Line(ClockedEngine(0.01, 0.0003, **{"long": 40, **steps}))


def test_where_a_call_costs_in_proportion_chains_are_run_one_after_the_other() -> None:
    line = on_cpu()
    line.add(*range(8))
    line.run()
    assert line.ended == list(range(8))
    sizes = Counter(map(len, line.engine.calls))
    assert sizes[1] / sizes.total() > 0.9  # but for a look now and then at what more would cost


def test_where_a_call_costs_hardly_more_they_advance_together() -> None:
    line = on_gpu()
    line.add(*range(12))
    line.run()
    assert Counter(map(len, line.engine.calls)).most_common(1)[0][0] == 8
    assert len(line.engine.calls) <= 2 * 40
    assert line.engine.spent == dict.fromkeys(range(12), 40) | {128: line.engine.spent[128]}


@pytest.mark.parametrize("line", [on_cpu, on_gpu])
def test_an_image_of_one_call_passes_a_full_house_of_chains(line: Callable[[], Line]) -> None:
    full = line()
    full.add(*range(20))
    for _ in range(10):
        full.call()
    full.add(200, profile="fast")
    assert 200 in full.call() + full.call()
    full.run()
    assert full.scores == {value: value for value in [*range(20), 200]}
    assert all(full.engine.spent[value] == 40 for value in range(20))  # nothing was done twice


def test_a_camera_comes_before_backfill_that_keeps_how_far_it_is() -> None:
    line = on_cpu()
    line.add(1, 2, priority="backfill")
    for _ in range(20):
        line.call()
    line.add(3)
    calls = [line.call() for _ in range(40)]
    assert sum(values != [3] for values in calls) <= 40 // 8 + 1
    line.run()
    assert line.ended == [3, 1, 2]
    assert [line.engine.spent[value] for value in (1, 2, 3)] == [40, 40, 40]


def test_an_engine_that_becomes_another_kind_is_followed() -> None:
    """As when other work takes the cores, or gives them back."""
    line = on_cpu()
    line.engine.fixed_s, line.engine.each_s = 0.01, 0.0003
    line.add(*range(8))
    for _ in range(12 * LOOK_EVERY):
        line.call()
        if len(line.waiting) < 8:
            line.add(len(line.engine.calls) % 100 + 50)
    assert Counter(map(len, line.engine.calls[-30:])).most_common(1)[0][0] == 8
    line.engine.fixed_s, line.engine.each_s = 0.0, 0.01
    for _ in range(12 * LOOK_EVERY):
        line.call()
        if len(line.waiting) < 8:
            line.add(len(line.engine.calls) % 100 + 50)
    assert Counter(map(len, line.engine.calls[-30:])).most_common(1)[0][0] == 1


def test_what_cannot_be_begun_fails_alone_and_who_is_gone_is_forgotten() -> None:
    line = on_gpu()
    line.add(1, 2)
    line.add(3, profile="unknown")
    line.call()
    assert isinstance(line.scores[3], KeyError)
    assert line.engine.calls[-1] == [1, 2]
    del line.waiting[0]
    assert line.call() == [2]
    assert len(line.stepper._tasks) == 1
