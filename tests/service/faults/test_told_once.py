"""An inspection that is delivered twice, and so runs twice, has one result; its receiver hears of it once."""

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from service.db.session import Database
from tests.long import LONG, WHY
from tests.service.faults.conftest import Lines
from tests.service.faults.line import Line, calling, client, rows, unfinished, until
from tests.service.outbox.conftest import add_sink
from tests.service.receiver import Receiver

KNOWN, STREAM = "{inlier}:known", "{inlier}:camera"
Record = Callable[[str, object], None]


def told(line: Line, redis_url: str, receiver: Receiver, images: int) -> tuple[Counter[str], int]:
    """How often the receiver heard of each image, all of which were queued twice; how many ran twice."""
    line.api().wait()
    workers = [line.worker().wait() for _ in range(2)]
    for worker in workers:  # both are there, and neither is ahead of the other
        os.kill(worker.pid, signal.SIGSTOP)
    database = Database(line.database_url)
    add_sink(database, receiver.url)
    database.close()
    with calling(line.url, most=images) as answers:
        until(lambda: len(answers.accepted) == images, 120)
    redis = client(redis_url)
    redis.xtrim(STREAM, maxlen=0, approximate=False)
    names = list(answers.accepted)
    for first in range(0, images, TAKEN):  # each worker takes so many: the same ones are with both at once
        for identifier in 2 * names[first : first + TAKEN]:
            redis.xadd(STREAM, {"id": identifier})
    for worker in workers:
        os.kill(worker.pid, signal.SIGCONT)
    until(lambda: unfinished(line.database_url) == 0, 120)
    until(lambda: heard(receiver).keys() == answers.accepted.keys(), 60)
    time.sleep(1.5)  # for what should not come
    found = rows(line.database_url)
    assert {row.id for row in found} == set(answers.accepted)
    return heard(receiver), sum(row.attempts > 1 for row in found)


def heard(receiver: Receiver) -> Counter[str]:
    return Counter(json.loads(one.body)["data"]["id"] for one in list(receiver.received))


TAKEN = 4
SETTINGS = {"batch_size": TAKEN // 2, "sink_allow": "127.0.0.1"}
SLOW = {**SETTINGS, "delay_s": 0.4}
"""An image takes so long that both workers have taken it before one has run it."""


def prove(line: Line, redis_url: str, receiver: Receiver, images: int, record: Record) -> None:
    counts, twice = told(line, redis_url, receiver, images)
    record(f"of {images} images delivered twice ran twice", twice)
    record(f"messages received of {images} images", counts.total())
    assert twice >= images / 4
    assert set(counts.values()) == {1}


@pytest.mark.promise(3)
def test_the_receiver_hears_once_of_what_ran_twice(
    new_line: Lines, shared: dict[str, Any], redis_url: str, receiver: Receiver, record_property: Record
) -> None:
    prove(new_line(**shared, **SLOW), redis_url, receiver, 10, record_property)


@pytest.mark.promise(3, control=True)
@pytest.mark.parametrize("broken", ["ends_twice", "forgets_that_it_told"])
def test_telling_twice_would_be_noticed(
    new_line: Lines, shared: dict[str, Any], redis_url: str, receiver: Receiver, broken: str
) -> None:
    counts, _ = told(new_line(**shared, **SLOW, broken=broken), redis_url, receiver, 10)
    assert max(counts.values()) > 1


@pytest.mark.promise(3)
@pytest.mark.slow
@pytest.mark.skipif(not LONG, reason=WHY)
def test_the_receiver_hears_once_of_hundreds_that_ran_twice(
    new_line: Lines, shared: dict[str, Any], redis_url: str, receiver: Receiver, record_property: Record
) -> None:
    line = new_line(**shared, **SETTINGS, delay_s=0.1, queue_size=1000, max_queue_s=10_000)
    prove(line, redis_url, receiver, 500, record_property)
