"""The overview's control chart, against limits worked out by hand."""

from datetime import UTC, datetime, timedelta

import pytest

from service.db.session import Database
from service.review import lately
from service.review.lately import Watched, p_chart

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def parts(minutes_ago: float, good: int, rejected: int) -> list[tuple[datetime, bool]]:
    moment = NOW - timedelta(minutes=minutes_ago)
    return [(moment, False)] * good + [(moment, True)] * rejected


def test_limits_are_those_of_the_binomial() -> None:
    slots = p_chart(parts(2, 90, 10) + parts(58, 90, 10), NOW)
    assert [slot.count for slot in slots] == [100, *[0] * 10, 100]
    # p = 0.1, n = 100: sigma = sqrt(0.1 * 0.9 / 100) = 0.03
    assert (slots[0].upper, slots[0].lower) == (pytest.approx(0.19), pytest.approx(0.01))
    assert not slots[0].out
    assert slots[5].share is None
    assert not slots[5].out


def test_a_slot_beyond_the_limits_is_out() -> None:
    calm = [part for minute in range(7, 60, 5) for part in parts(minute, 99, 1)]
    slots = p_chart(calm + parts(1, 80, 20), NOW)
    assert [slot.out for slot in slots] == [False] * 11 + [True]


def test_what_is_older_than_the_hour_does_not_count() -> None:
    assert sum(slot.count for slot in p_chart(parts(61, 5, 5), NOW)) == 0


def test_who_watches_shares_one_count(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[Database] = []
    monkeypatch.setattr(lately, "overview", lambda database: counted.append(database) or [])
    watched, database = Watched(), Database("sqlite://")
    for _ in range(3):
        assert watched.groups(database, fresh_s=3600) == []
    assert len(counted) == 1
    for _ in range(2):
        Watched().groups(database, fresh_s=0)
    assert len(counted) == 3
    database.close()
