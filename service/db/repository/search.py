"""Finding inspections: a page of any combination of filters, for a bounded amount of work.

No set of indexes serves every combination of filters, and planners guess wrong about some. So a page is
found in steps of at most `WINDOW` candidates. For each step every index that could serve is asked how far
`WINDOW` of its entries reach (a look at the index alone); the one that reaches farthest, being the most
selective there, is read, and the other filters are applied to its rows. A filter that only few rows meet is
read whole and sorted. A page is full, or complete, or as long as the time allowed; its `next` goes on from
there in each case.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, and_, case, func, literal, select, true, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from service.db.tables import AttributeRow, InspectionRow
from service.ids import first_id_at

WINDOW = 4000
BUDGET_S = 0.02
Order = Literal["newest", "oldest", "margin"]
Row = InspectionRow
_QUEUE = frozenset({"review_state", "wanted"})
_RANGES = frozenset({"captured_at", "score", "created"})


@dataclass(frozen=True)
class Position:
    """The place after one inspection in the order of pages."""

    id: str
    margin: float | None = None


@dataclass(frozen=True)
class Page:
    """Inspections in order; `next` is the place to go on from, None when there are no more."""

    rows: Sequence[InspectionRow]
    next: Position | None


@dataclass(frozen=True)
class Filter:
    """Which inspections: equal columns (names of `tables.FILTERS`), attributes as text, and ranges.

    Spans of time are half-open, the range of scores is closed.
    """

    equal: Mapping[str, str | bool] = field(default_factory=dict)
    since: datetime | None = None
    until: datetime | None = None
    captured_since: datetime | None = None
    captured_until: datetime | None = None
    score_min: float | None = None
    score_max: float | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)


def page(
    session: Session,
    wanted: Filter,
    *,
    limit: int,
    order: Order = "newest",
    after: Position | None = None,
    budget_s: float | None = None,
) -> Page:
    """Up to `limit` inspections after a position; stable while new ones arrive.

    Without a budget it goes on until the page is full or nothing is left. With one the page may be
    shorter, even empty, and still have a `next`: after `budget_s` the search pauses.
    """
    started = time.monotonic()
    search = _Search(session, wanted, order)
    rows: list[InspectionRow] = []
    while True:
        found, edge = search.step(after, limit + 1 - len(rows))
        rows += found
        if len(rows) > limit:
            return Page(rows[:limit], _position(rows[limit - 1], order))
        if edge is None or (budget_s is not None and time.monotonic() - started > budget_s):
            return Page(rows, edge)
        after = edge


def _position(row: InspectionRow, order: Order) -> Position:
    return Position(row.id, row.margin if order == "margin" else None)


@dataclass(frozen=True)
class _Source:
    """An index, of inspections or of their attributes, and the filters it answers as one condition."""

    covers: frozenset[str]
    condition: ColumnElement[bool]
    of_attributes: bool = False

    def key(self) -> InstrumentedAttribute[str]:
        """The id of the inspection, in the table that the index is of."""
        return AttributeRow.inspection_id if self.of_attributes else Row.id


class _Search:
    """One combination of filters in one order."""

    def __init__(self, session: Session, wanted: Filter, order: Order) -> None:
        self._session = session
        self._order = order
        self._wanted = wanted
        self._filters = _filters(wanted)
        if order == "margin" and (span := self._created(Row.id)):
            self._filters["created"] = and_(*span)  # in the other orders it is part of the stretch
        self._few = self._smallest()

    def step(self, after: Position | None, limit: int) -> tuple[Sequence[InspectionRow], Position | None]:
        """Up to `limit` rows after a position, and where the searched stretch ended; None at the very end."""
        if self._few is not None:
            return self._collect(self._few, after, limit), None
        source, edge = self._farthest(after)
        return self._walk(source, after, edge, limit), edge

    # --- walking along an index that has the order of the page ----------------------------------------

    def _walks(self) -> Iterator[_Source]:
        """The indexes that hold their rows in the order of the page."""
        if self._order == "margin":
            judged = Row.margin.is_not(None)
            yield _Source(frozenset(), judged)
            if _QUEUE <= set(self._filters):
                yield _Source(_QUEUE, and_(judged, *(self._filters[name] for name in sorted(_QUEUE))))
            return
        yield _Source(frozenset(), true())
        for name in self._wanted.equal:
            yield _Source(frozenset({name}), self._filters[name])
        for name, text in self._wanted.attributes.items():
            yield _Source(frozenset({_attr(name)}), _is(name, text), of_attributes=True)

    def _farthest(self, after: Position | None) -> tuple[_Source, Position | None]:
        """The walk whose next WINDOW entries reach farthest, and where they end; None at the very end."""
        best: tuple[_Source, Position] | None = None
        for source in self._walks():
            columns = (source.key(), Row.margin) if self._order == "margin" else (source.key(),)
            query = select(*columns).where(source.condition, *self._span(source.key(), after))
            query = query.order_by(*self._sort(source.key())).offset(WINDOW - 1).limit(1)
            found = self._session.execute(query).first()
            if found is None:
                return source, None
            edge = Position(found[0], found[1] if self._order == "margin" else None)
            if best is None or self._is_farther(edge, best[1]):
                best = source, edge
        assert best is not None
        return best

    def _walk(
        self, source: _Source, after: Position | None, edge: Position | None, limit: int
    ) -> Sequence[InspectionRow]:
        query = select(Row)
        if source.of_attributes:
            # The span on both sides of the join, so that either side may lead.
            query = query.join(AttributeRow, AttributeRow.inspection_id == Row.id)
            query = query.where(*self._span(Row.id, after, edge))
        others = (_fenced(part) for name, part in self._filters.items() if name not in source.covers)
        query = query.where(source.condition, *self._span(source.key(), after, edge), *others)
        return self._session.scalars(query.order_by(*self._sort(source.key())).limit(limit)).all()

    # --- reading a filter that few rows meet ----------------------------------------------------------

    def _smallest(self) -> _Source | None:
        """What yields the fewest rows without having their order, at most WINDOW; None if all yield more."""
        counted = [(self._count(source), number, source) for number, source in enumerate(self._sets())]
        few = min((item for item in counted if item[0] <= WINDOW), default=None)
        return few[2] if few else None

    def _sets(self) -> Iterator[_Source]:
        """The indexes that hold just the rows of a filter, in another order than the page's."""
        for name in sorted(_RANGES & set(self._filters)):
            yield _Source(frozenset({name}), self._filters[name])
        if self._order != "margin":
            if _QUEUE <= set(self._filters):
                yield _Source(_QUEUE, and_(*(self._filters[name] for name in sorted(_QUEUE))))
            return
        for name in self._wanted.equal:
            yield _Source(frozenset({name}), self._filters[name])
        for name, text in self._wanted.attributes.items():
            yield _Source(frozenset({_attr(name)}), _is(name, text), of_attributes=True)

    def _count(self, source: _Source) -> int:
        some = (
            select(literal(1))
            .select_from(AttributeRow if source.of_attributes else Row)
            .where(source.condition)
            .limit(WINDOW + 1)
        )
        return self._session.scalar(select(func.count()).select_from(some.subquery())) or 0

    def _collect(self, source: _Source, after: Position | None, limit: int) -> Sequence[InspectionRow]:
        query = select(Row)
        if source.of_attributes:
            query = query.join(AttributeRow, AttributeRow.inspection_id == Row.id)
        others = [part for name, part in self._filters.items() if name not in source.covers]
        others += self._span(Row.id, after)
        if self._order == "margin":
            others.append(Row.margin.is_not(None))
        query = query.where(source.condition, *map(_fenced, others))
        # Sorting by an expression: an index that has the order must not tempt the planner to walk it all.
        newest = self._order == "newest"
        by_id = (Row.id + "").desc() if newest else (Row.id + "").asc()
        query = query.order_by(*([Row.margin + 0.0] if self._order == "margin" else []), by_id)
        return self._session.scalars(query.limit(limit)).all()

    # --- order and position ---------------------------------------------------------------------------

    def _sort(self, by: InstrumentedAttribute[str]) -> list[ColumnElement[Any]]:
        if self._order == "margin":
            return [Row.margin.asc(), by.asc()]
        return [by.desc() if self._order == "newest" else by.asc()]

    def _span(
        self, by: InstrumentedAttribute[str], after: Position | None, edge: Position | None = None
    ) -> list[ColumnElement[bool]]:
        """The stretch of the order after a position up to and with an edge."""
        if self._order == "margin":
            key = tuple_(Row.margin, by)
            parts = [key > tuple_(after.margin, after.id)] if after else []
            return [*parts, key <= tuple_(edge.margin, edge.id)] if edge else parts
        parts = self._created(by)
        if after is not None:
            parts.append(by < after.id if self._order == "newest" else by > after.id)
        if edge is not None:
            parts.append(by >= edge.id if self._order == "newest" else by <= edge.id)
        return parts

    def _created(self, by: InstrumentedAttribute[str]) -> list[ColumnElement[bool]]:
        """The span of arrival: ids carry their time, so each index that ends in the id serves it, too."""
        since, until = self._wanted.since, self._wanted.until
        parts = [] if since is None else [by >= first_id_at(since)]
        return parts if until is None else [*parts, by < first_id_at(until)]

    def _is_farther(self, one: Position, other: Position) -> bool:
        if self._order == "margin":
            return (one.margin or 0.0, one.id) > (other.margin or 0.0, other.id)
        return one.id < other.id if self._order == "newest" else one.id > other.id


def conditions(wanted: Filter) -> list[ColumnElement[bool]]:
    """All of a filter as conditions on a row, for queries that bring an index of their own."""
    parts = list(_filters(wanted).values())
    if wanted.since is not None:
        parts.append(Row.id >= first_id_at(wanted.since))
    if wanted.until is not None:
        parts.append(Row.id < first_id_at(wanted.until))
    return parts


def _filters(wanted: Filter) -> dict[str, ColumnElement[bool]]:
    """Each filter, but that of arrival, as a condition on a row."""
    found: dict[str, ColumnElement[bool]] = {}
    for name, value in wanted.equal.items():
        found[name] = getattr(Row, name) == value
    for name, text in wanted.attributes.items():
        other = aliased(AttributeRow)  # the walk may be along the attributes themselves
        of_row = (other.inspection_id == Row.id, other.name == name, other.value == text)
        found[_attr(name)] = select(other).where(*of_row).correlate(Row).exists()
    spans = {
        "captured_at": (Row.captured_at, wanted.captured_since, wanted.captured_until),
        "score": (Row.score, wanted.score_min, wanted.score_max),
    }
    for name, (column, low, high) in spans.items():
        parts: list[ColumnElement[bool]] = [] if low is None else [column >= low]
        if high is not None:
            parts.append(column <= high if name == "score" else column < high)
        if parts:
            found[name] = and_(*parts)
    return found


def _attr(name: str) -> str:
    return f"attr.{name}"


def _is(name: str, text: str) -> ColumnElement[bool]:
    return and_(AttributeRow.name == name, AttributeRow.value == text)


def _fenced(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """The same condition in a form that no planner looks into: it is not to choose another index."""
    return case((condition, 1), else_=0) == 1
