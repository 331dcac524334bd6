"""An API that is killed at random moments has lost nothing of what it answered."""

import random
import time
from collections.abc import Callable

import pytest

from tests.long import LONG, WHY
from tests.service.faults.conftest import Lines
from tests.service.faults.line import Answers, Line, calling, half_written, until

LONGEST_S = 0.4  # of the life of an API after its first answer


def killed_under_load(line: Line, kills: int, seed: int) -> Answers:
    """What callers were told by an API that was killed and started so many times."""
    moments = random.Random(seed)
    with calling(line.url) as answers:
        for _ in range(kills):
            before = len(answers.accepted)
            api = line.api().wait()
            until(lambda before=before: len(answers.accepted) > before, 60)
            time.sleep(moments.uniform(0, LONGEST_S))
            api.kill()
    return answers


def prove(line: Line, kills: int, record: Callable[[str, object], None]) -> None:
    answers = killed_under_load(line, kills, seed=kills)
    record(f"accepted in spite of {kills} kills", len(answers.accepted))
    record(f"answers that {kills} kills cut off", answers.broken_off)
    assert len(answers.accepted) >= kills
    assert answers.lost(line.database_url, line.blobs) == []
    assert half_written(line.database_url, line.blobs) == []


@pytest.mark.promise(1)
def test_what_was_answered_is_there_after_kills(
    new_line: Lines, record_property: Callable[[str, object], None]
) -> None:
    prove(new_line(), 3, record_property)


@pytest.mark.promise(1, control=True)
def test_answering_before_the_commit_would_be_noticed(new_line: Lines) -> None:
    line = new_line(broken="answers_first")
    answers = killed_under_load(line, 3, seed=3)
    assert answers.accepted
    assert answers.lost(line.database_url, line.blobs) != []


@pytest.mark.promise(1)
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not LONG, reason=WHY)
def test_what_was_answered_is_there_after_two_hundred_kills(
    new_line: Lines, record_property: Callable[[str, object], None]
) -> None:
    prove(new_line(), 200, record_property)
