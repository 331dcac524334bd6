"""Connections to PostgreSQL that are cut in the middle of a transaction, as a caller sees it."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable

import httpx
import pytest
from sqlalchemy import Engine, NullPool, create_engine, text

from tests.long import LONG, WHY
from tests.service.faults.conftest import Lines
from tests.service.faults.line import Answers, Line, calling, half_written, post, rows, unfinished, until

INSERTING = text(
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
    " AND wait_event_type = 'Lock' AND query LIKE 'INSERT INTO inspections %'"
)
ALL = text(
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)
CUT = text("SELECT pg_terminate_backend(:pid)")


def beside(url: str) -> Engine:
    return create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)


def cut_while_inserting(line: Line) -> Answers:
    """The answer to a post whose connection was cut after its INSERT was sent, before its COMMIT."""
    line.api().wait()
    post(line.url, 1, warm := Answers())
    until(lambda: unfinished(line.database_url) == 0, 30)
    assert warm.accepted
    answers, pids = Answers(), list[int]()
    posting = threading.Thread(target=post, args=(line.url, 2, answers))

    def waits() -> bool:
        with beside(line.database_url).connect() as connection:
            pids[:] = connection.scalars(INSERTING)
        return bool(pids)

    with create_engine(line.database_url, poolclass=NullPool).begin() as holder:
        holder.execute(text("LOCK TABLE inspections IN SHARE ROW EXCLUSIVE MODE"))  # lets others only read
        posting.start()
        until(waits, 30)
        with beside(line.database_url).connect() as connection:
            connection.execute(CUT, {"pid": pids[0]})
        posting.join()
    return answers


@pytest.mark.promise(9)
def test_a_connection_cut_in_the_middle_is_503_and_nothing_is_stored(
    new_line: Lines, postgres_url: str
) -> None:
    line = new_line(database_url=postgres_url)
    answers = cut_while_inserting(line)
    (answer,) = answers.refused
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:inlier:problem:database-unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    assert len(rows(postgres_url)) == 1  # of the first post
    post(line.url, 2, answers)
    assert len(answers.accepted) == 1
    assert answers.lost(postgres_url, line.blobs) == []


@pytest.mark.promise(9, control=True)
def test_passing_over_a_cut_would_be_noticed(new_line: Lines, postgres_url: str) -> None:
    line = new_line(database_url=postgres_url, broken="passes_over_failures")
    answers = cut_while_inserting(line)
    assert answers.lost(postgres_url, line.blobs) != []


def prove(line: Line, cuts: int, record: Callable[[str, object], None]) -> None:
    """All connections of the service are cut at random moments."""
    line.api().wait()
    moments = random.Random(cuts)
    with calling(line.url) as answers, beside(line.database_url).connect() as connection:
        cut = 0
        for _ in range(cuts):
            time.sleep(moments.uniform(0.05, 0.4))
            cut += connection.scalar(ALL) or 0
    record(f"connections cut at {cuts} moments", cut)
    record(f"accepted and refused, with {cuts} cuts", f"{len(answers.accepted)} and {len(answers.refused)}")
    assert cut >= cuts
    assert answers.accepted
    assert answers.broken_off == 0
    assert {answer.status_code for answer in answers.refused} <= {503}, _said(answers.refused)
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers.refused)
    assert answers.lost(line.database_url, line.blobs) == []
    assert half_written(line.database_url, line.blobs) == []
    until(lambda: unfinished(line.database_url) == 0, 120)
    ends = Counter(row.status for row in rows(line.database_url))
    record(f"ends after {cuts} cuts", dict(ends))
    assert set(ends) == {"done"}  # although each has one attempt only


def _said(answers: list[httpx.Response]) -> set[str]:
    return {answer.text for answer in answers if answer.status_code != 503}


@pytest.mark.promise(9)
@pytest.mark.parametrize(
    "cuts",
    [5, pytest.param(200, marks=[pytest.mark.slow, pytest.mark.skipif(not LONG, reason=WHY)])],
)
def test_connections_cut_at_any_moment_lose_nothing(
    new_line: Lines, postgres_url: str, cuts: int, record_property: Callable[[str, object], None]
) -> None:
    prove(new_line(database_url=postgres_url, lease_s=2, sweep_s=1, max_attempts=1), cuts, record_property)
