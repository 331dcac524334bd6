"""Connections to PostgreSQL that are cut under a worker that has an image in hand: no attempt is counted.

Every image here has one attempt only, so one that counted would end it as failed.
"""

from typing import Any

import pytest
from sqlalchemy import NullPool, create_engine, text

from tests.service.faults.cable import cable
from tests.service.faults.conftest import Lines
from tests.service.faults.line import Answers, Line, post, rows, unfinished, until
from tests.service.faults.test_connection_cut import beside

ONE = {"max_attempts": 1, "lease_s": 2}
CUT_WAITING = text(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
    " AND wait_event_type = 'Lock' AND query LIKE :query"
)
COUNTING = ("inspections", "SHARE", "UPDATE inspections SET%attempts=(inspections.attempts%")
JUDGING = ("thresholds", "ACCESS EXCLUSIVE", "SELECT thresholds%")  # when it has been through the engine
ENDING = ("sinks", "EXCLUSIVE", "SELECT sinks%FOR KEY SHARE%")  # after the row is written
Moment = tuple[str, str, str]


def cut_while(line: Line, moment: Moment) -> None:
    """One image; connections that wait for a table that is locked, with this query, are cut."""
    table, mode, query = moment
    line.api().wait()
    if moment == JUDGING:  # who starts or accepts asks that, too
        worker = line.worker(delay_s=5).wait()  # time enough for the lock
    post(line.url, 1, Answers())
    if moment == JUDGING:
        until(lambda: rows(line.database_url)[0].status == "running", 30)
    with create_engine(line.database_url, poolclass=NullPool).begin() as holder:
        holder.execute(text(f"LOCK TABLE {table} IN {mode} MODE"))
        if moment == JUDGING:
            until(lambda: cut(line, query) >= 0 and "postponed" in worker.log.read_text(), 60)
        else:
            line.worker()
            until(lambda: cut(line, query) > 0, 60)


def cut(line: Line, query: str) -> int:
    """How many connections there were."""
    with beside(line.database_url).connect() as connection:
        return len(connection.scalars(CUT_WAITING, {"query": query}).all())


def ends(line: Line) -> list[tuple[str, int]]:
    """(status, attempts) of every image, when all have ended."""
    until(lambda: unfinished(line.database_url) == 0, 60)
    return [(row.status, row.attempts) for row in rows(line.database_url)]


@pytest.mark.promise(9)
@pytest.mark.parametrize("moment", [COUNTING, JUDGING, ENDING], ids=["counting", "judging", "ending"])
def test_a_cut_is_no_attempt(new_line: Lines, shared: dict[str, Any], moment: Moment) -> None:
    line = new_line(**shared, **ONE)
    cut_while(line, moment)
    assert ends(line) == [("done", 1)]


@pytest.mark.promise(9, control=True)
def test_counting_it_would_be_noticed(new_line: Lines, shared: dict[str, Any]) -> None:
    line = new_line(**shared, **ONE, broken="counts_every_attempt")
    cut_while(line, JUDGING)
    assert ends(line) == [("failed", 2)]


def after_lost_answers(new_line: Lines, shared: dict[str, Any], broken: str = "") -> list[tuple[str, int]]:
    """An image's end: its attempt is counted twice and the worker does not hear of it."""
    with cable(shared["database_url"], cuts=2) as wire:
        line = new_line(**{**shared, "database_url": wire.url}, **ONE, broken=broken)
        line.api().wait()
        post(line.url, 1, Answers())
        line.worker()
        found = ends(line)
        assert wire.cut == 2
    return found


@pytest.mark.promise(9)
def test_an_attempt_whose_commit_had_no_answer_is_taken_back(new_line: Lines, shared: dict[str, Any]) -> None:
    assert after_lost_answers(new_line, shared) == [("done", 1)]


@pytest.mark.promise(9, control=True)
def test_leaving_it_counted_would_be_noticed(new_line: Lines, shared: dict[str, Any]) -> None:
    assert after_lost_answers(new_line, shared, "counts_every_attempt") == [("failed", 3)]
