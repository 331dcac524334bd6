"""Scores kept for a moment: few are always as the database has them, many are not read at every step."""

from datetime import UTC, datetime

import pytest
from sqlalchemy import event

from service.db.repository.scores import Span
from service.db.session import Database
from service.recipes import memory
from service.recipes.memory import ScoreMemory
from tests.service.recipes.conftest import HASH, Insert

SPAN = Span("bolt", HASH, "fast", None)


def reads(database: Database) -> list[str]:
    found: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda *given: found.append(given[2]))
    return found


def test_few_are_read_anew_each_time(line: Database, insert: Insert) -> None:
    known = ScoreMemory()
    assert len(known.of(line, SPAN, 100)) == 0
    insert(1.0)
    assert known.of(line, SPAN, 100).scores.tolist() == [1.0]


def test_many_are_read_once_in_a_while(
    line: Database, insert: Insert, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_FEW", 2)
    known = ScoreMemory()
    for score in (1.0, 2.0):
        insert(score)
    first = known.of(line, SPAN, 100)
    insert(3.0)
    asked = reads(line)
    assert known.of(line, SPAN, 100) is first
    assert asked == []
    assert len(known.of(line, SPAN, 100, fresh_s=0)) == 3
    assert (
        len(known.of(line, Span("bolt", HASH, "fast", None, since=datetime(2020, 1, 1, tzinfo=UTC)), 9)) == 3
    )


def test_it_forgets_what_was_read_longest_ago(
    line: Database, insert: Insert, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_FEW", 2)
    monkeypatch.setattr(memory, "_MOST", 5)
    known = ScoreMemory()
    for score in (1.0, 2.0):
        insert(score)
    first, second = (known.of(line, SPAN, limit) for limit in (10, 11))
    third = known.of(line, SPAN, 12)
    assert known.of(line, SPAN, 11) is second
    assert known.of(line, SPAN, 12) is third
    assert known.of(line, SPAN, 10) is not first
