"""Workers that are killed: every image ends, in time, and none is taken from a worker that lives."""

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.long import LONG, WHY
from tests.service.faults.conftest import Lines
from tests.service.faults.line import Answers, Line, calling, post, rows, unfinished, until

Record = Callable[[str, object], None]
PROMISED_S = 5.0  # beyond the lease


@dataclass(frozen=True)
class Outcome:
    accepted: set[str]
    refused: int
    rows: dict[str, str]  # id -> status
    kills: int
    again: int  # images that ran more than once

    @property
    def missing(self) -> set[str]:
        return self.accepted ^ set(self.rows)

    @property
    def stuck(self) -> list[str]:
        return [name for name, status in self.rows.items() if status in ("queued", "running")]


def killed_again_and_again(line: Line, images: int, every_s: float, patience_s: float) -> Outcome:
    """One of three workers is killed, and another one started, until all is done or nothing moves."""
    line.api().wait()
    crew, dice, kills = [line.worker().wait() for _ in range(3)], random.Random(images), 0
    with calling(line.url, most=images) as answers:
        left, moved_at = images, time.monotonic()
        while left and time.monotonic() < moved_at + patience_s:
            time.sleep(every_s)
            ready = [member for member in crew if member.ready()]
            if ready:  # or on a slow machine none would live long enough to begin anything
                victim = dice.choice(ready)
                victim.kill()
                kills += 1
                crew[crew.index(victim)] = line.worker()
            posted = len(answers.accepted) + len(answers.refused) + answers.broken_off
            if (now := images - posted + unfinished(line.database_url)) != left:
                left, moved_at = now, time.monotonic()
    found = rows(line.database_url)
    again = sum(row.attempts > 1 for row in found)
    return Outcome(
        set(answers.accepted), len(answers.refused), {row.id: row.status for row in found}, kills, again
    )


def prove(line: Line, images: int, every_s: float, record: Record) -> None:
    outcome = killed_again_and_again(line, images, every_s, patience_s=60)
    ends = Counter(outcome.rows.values())
    record(f"workers killed while {images} images ran", outcome.kills)
    record(f"of {images} images", f"{dict(ends)}, {outcome.again} ran more than once")
    assert (len(outcome.accepted), outcome.refused) == (images, 0)
    assert outcome.missing == set()
    assert outcome.stuck == []
    assert set(ends) <= {"done", "failed"}  # failed: it was in the hands of three that were killed
    assert outcome.kills > 1


@pytest.mark.promise(2)
def test_every_image_ends_while_workers_are_killed(
    new_line: Lines, shared: dict[str, Any], record_property: Record
) -> None:
    line = new_line(**shared, lease_s=1, batch_size=1, delay_s=0.1)
    prove(line, 20, 0.3, record_property)


@pytest.mark.promise(2, control=True)
def test_acknowledging_what_is_only_taken_would_be_noticed(new_line: Lines, shared: dict[str, Any]) -> None:
    line = new_line(**shared, lease_s=0.5, batch_size=1, delay_s=0.1, broken="acknowledges_first")
    outcome = killed_again_and_again(line, 12, 0.3, patience_s=2)
    assert outcome.stuck != []


@pytest.mark.promise(2)
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not LONG, reason=WHY)
def test_five_hundred_images_end_while_a_worker_is_killed_every_second(
    new_line: Lines, shared: dict[str, Any], record_property: Record
) -> None:
    line = new_line(**shared, lease_s=3, batch_size=2, delay_s=0.25, queue_size=1000, max_queue_s=10_000)
    prove(line, 500, 1.0, record_property)


def runs_again_after(line: Line, lease_s: float) -> float:
    """Seconds from the death of a worker until all that it had is begun by another one."""
    line.api().wait()
    victim = line.worker(delay_s=1000).wait()
    for number in range(3):
        post(line.url, number, Answers())
    until(lambda: {row.status for row in rows(line.database_url)} == {"running"}, 30)
    line.worker().wait()
    time.sleep(random.uniform(0, lease_s))
    assert {row.attempts for row in rows(line.database_url)} == {1}
    victim.kill()
    return until(lambda: all(row.attempts == 2 for row in rows(line.database_url)), lease_s + 60)


@pytest.mark.promise(7)
@pytest.mark.parametrize(
    "lease_s",
    [2.0, pytest.param(30.0, marks=[pytest.mark.slow, pytest.mark.skipif(not LONG, reason=WHY)])],
)
def test_a_dead_workers_images_run_again_in_time(
    new_line: Lines, shared: dict[str, Any], lease_s: float, record_property: Record
) -> None:
    spent_s = runs_again_after(new_line(**shared, lease_s=lease_s), lease_s)
    record_property(f"begun again after, with a lease of {lease_s:g} s", f"{spent_s:.1f} s")
    assert spent_s <= lease_s + PROMISED_S


def attempts_at_a_long_image(line: Line) -> int:
    """Of one that takes three leases, while another worker has nothing to do."""
    line.api().wait()
    for worker in [line.worker(), line.worker()]:
        worker.wait()
    post(line.url, 1, Answers())
    until(lambda: unfinished(line.database_url) == 0, 30)
    return int(rows(line.database_url)[0].attempts)


LONG_IMAGE = {"lease_s": 2.0, "delay_s": 6.0}


@pytest.mark.promise(7)
def test_a_live_workers_image_is_not_taken(new_line: Lines, shared: dict[str, Any]) -> None:
    assert attempts_at_a_long_image(new_line(**shared, **LONG_IMAGE)) == 1


@pytest.mark.promise(7, control=True)
def test_leases_that_are_not_renewed_would_be_noticed(new_line: Lines, shared: dict[str, Any]) -> None:
    assert attempts_at_a_long_image(new_line(**shared, **LONG_IMAGE, broken="never_renews")) > 1
