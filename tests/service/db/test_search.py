"""Pages of inspections on both databases, compared with filtering and sorting all of them in Python."""

import random
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.orm import Session

from service.db.repository import search
from service.db.repository.filters import Filter
from service.db.repository.inspections import attribute_text
from service.db.repository.search import Order, Position
from service.db.session import Database
from service.db.tables import InspectionRow
from tests.service.db import rows as make

COUNT = 240
ORDERS: tuple[Order, ...] = ("newest", "oldest", "margin")


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    with database.write() as session:
        make.add_model(session)
        make.store(session, make.mixed(COUNT))
    with database.read() as session:
        yield session


def matches(row: InspectionRow, wanted: Filter) -> bool:
    """What a filter means, in plain words of Python."""

    def within(value: Any, low: Any, high: Any, closed: bool = False) -> bool:
        if low is None and high is None:
            return True
        if value is None or (low is not None and value < low):
            return False
        return high is None or value < high or (closed and value == high)

    return (
        all(getattr(row, name) == value for name, value in wanted.equal.items())
        and all(
            name in row.attributes and attribute_text(row.attributes[name]) == text
            for name, text in wanted.attributes.items()
        )
        and within(row.created_at, wanted.since, wanted.until)
        and within(row.captured_at, wanted.captured_since, wanted.captured_until)
        and within(row.score, wanted.score_min, wanted.score_max, closed=True)
    )


def expected(wanted: Filter, order: Order) -> list[str]:
    found = [row for row in make.mixed(COUNT) if matches(row, wanted)]
    if order == "margin":
        found = sorted((row for row in found if row.margin is not None), key=lambda row: (row.margin, row.id))
    return [row.id for row in (reversed(found) if order == "newest" else found)]


def walk(session: Session, wanted: Filter, order: Order, **options: Any) -> tuple[list[str], int]:
    """All ids through all pages, and how many pages there were."""
    found: list[str] = []
    after: Position | None = None
    for number in range(1, 2000):
        page = search.page(session, wanted, limit=20, order=order, after=after, **options)
        assert len(page.rows) <= 20
        found += [row.id for row in page.rows]
        if page.next is None:
            return found, number
        assert page.next != after, "a page that goes nowhere"
        after = page.next
    raise AssertionError("the pages do not end")


def random_filter(rng: random.Random) -> Filter:
    choices: dict[str, list[Any]] = {
        "status": ["done", "queued", "failed", "expired"],
        "verdict": ["PASS", "REVIEW", "REJECT", "ERROR", "EXPIRED"],
        "recipe": ["bolt", "nut", "none"],
        "line": ["A", "B", "C"],
        "station": ["A0", "B1", "C1"],
        "lot": ["lot0", "lot2", "lot4"],
        "serial": ["s3", "s150"],
        "review_state": ["none", "good", "defective"],
        "disagreement": [True, False],
        "wanted": [True, False],
    }
    names = rng.sample(sorted(choices), rng.choice([0, 1, 1, 2, 2, 3]))
    attributes = {"shift": ["day", "night"], "tool": ["0", "3"], "wet": ["true", "false"], "no": ["x"]}
    chosen = rng.sample(sorted(attributes), rng.choice([0, 0, 0, 1, 2]))

    def moment() -> Any:
        return make.START + timedelta(seconds=rng.randrange(COUNT)) if rng.random() < 0.2 else None

    return Filter(
        equal={name: rng.choice(choices[name]) for name in names},
        attributes={name: rng.choice(attributes[name]) for name in chosen},
        since=moment(),
        until=moment(),
        captured_since=moment(),
        captured_until=moment(),
        score_min=rng.choice([None, None, None, -1.0, 6.0]),
        score_max=rng.choice([None, None, None, 3.0]),
    )


def small(monkeypatch: pytest.MonkeyPatch, window: int) -> None:
    """Steps and sorted sets so small that these few rows take many of them."""
    for name, value in (("FIRST", window), ("MOST", 2 * window), ("PROBE", window), ("FEW", window)):
        monkeypatch.setattr(search, name, value)
    monkeypatch.setattr(search, "EXTENT", 2 * window)


@pytest.mark.parametrize("window", [5, 40])
def test_pages_hold_what_the_filters_mean(
    session: Session, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(monkeypatch, window)
    rng = random.Random(window)
    found_some = 0
    for _ in range(30):
        wanted, order = random_filter(rng), rng.choice(ORDERS)
        whole, _ = walk(session, wanted, order, budget_s=None)
        assert whole == expected(wanted, order), (wanted, order)
        found_some += bool(whole)
    assert found_some > 8  # or the filters above match nothing, and this test says nothing


@pytest.mark.parametrize("order", ORDERS)
def test_a_pause_loses_nothing(session: Session, order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch, 10)
    contradiction = Filter(equal={"line": "A", "station": "B0"})
    found, pages = walk(session, contradiction, order, budget_s=0.0)
    assert found == []
    assert pages > 3  # empty pages with a `next`, each after one step
    some = Filter(equal={"verdict": "PASS"}, attributes={"wet": "true"})
    assert walk(session, some, order, budget_s=0.0)[0] == expected(some, order)


def test_full_pages_when_there_is_time(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch, 10)
    some = Filter(equal={"verdict": "PASS"}, attributes={"wet": "true"})
    page = search.page(session, some, limit=20, budget_s=None)
    assert len(page.rows) == 20


def test_new_rows_do_not_shift_a_page(database: Database, session: Session) -> None:
    first = search.page(session, Filter(), limit=20)
    with database.write() as other:
        make.store(other, [make.row(COUNT + 1)])
    second = search.page(session, Filter(), limit=20, after=first.next)
    ids = [row.id for row in (*first.rows, *second.rows)]
    assert ids == [make.identifier(number) for number in range(COUNT - 1, COUNT - 41, -1)]


def test_attributes_are_found_by_their_text(session: Session) -> None:
    with_text = Filter(attributes={"tool": "3", "wet": "false"})
    rows = search.page(session, with_text, limit=100, budget_s=None).rows
    assert rows
    assert {(row.attributes["tool"], row.attributes["wet"]) for row in rows} == {(3, False)}
    assert attribute_text(None) == "null"
    assert attribute_text("x" * 300) == "x" * 256


def test_the_longest_labels_fit_into_every_index(database: Database) -> None:
    rng = random.Random(0)
    # Four bytes a character and nothing to compress: the most that a label can take.
    labels = {
        name: "".join(chr(rng.randrange(0x1F300, 0x2F800)) for _ in range(128))
        for name in ("line", "station", "part_id", "lot", "serial")
    }
    names = {name: "".join(rng.choices("abcdefghijklmnop", k=64)) for name in ("recipe", "profile")}
    with database.write() as session:
        make.add_model(session)
        make.store(session, [make.row(1, score=1.0, margin=2.0, **labels, **names), make.row(2)])
    with database.read() as session:
        wanted = Filter(equal={**labels, **names})
        assert [row.id for row in search.page(session, wanted, limit=9).rows] == [make.identifier(1)]
        assert [row.id for row in search.page(session, wanted, limit=9, order="margin").rows] == [
            make.identifier(1)
        ]
