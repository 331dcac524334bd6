"""Finding inspections: a page of any combination of filters, for a bounded amount of work.

No set of indexes serves every combination of filters, and planners guess wrong about some. So a page is
found in steps. In each step every index that has the order of the page is asked how far some of its entries
reach (a look at the index alone); the one that reaches farthest, being the most selective there, yields the
next candidates, and the other filters are applied to their rows. What a filter without that order lets
through is sorted first if it is little, and else tells between which ids to look. How many candidates a step
takes follows from how many were found among the last ones, and from how long that took. A page is full, or
complete, or as long as the time allowed; its `next` goes on from there in each case.
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from service.db.repository.filters import Condition, Filter, attribute_filter, conditions
from service.db.repository.sources import Bound, Column, Sorted, Source, Stretch, insist_on_order
from service.db.tables import AttributeRow, InspectionRow
from service.ids import first_id_at

FIRST, MOST = 1000, 16_000  # candidates of a step
PROBE = 1000  # entries by which indexes are compared
FEW = 1000  # entries of an index without that order that are read and sorted
EXTENT = 10_000  # of which the first and last id are looked for
BUDGET_S = 0.02
Order = Literal["newest", "oldest", "margin"]
Row = InspectionRow
_GROWTH = 5.0  # at most, from one step to the next
_LONG_AGO = datetime(1, 1, 1, tzinfo=UTC)
_FIRST_ID, _LAST_ID = "", "ffffffff-ffff-ffff-ffff-ffffffffffff"
_QUEUE = frozenset({"review_state", "wanted"})


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
    insist_on_order(session)
    pace = _Pace(budget_s)
    search = _Search(session, wanted, order)
    found: list[Position] = []
    while True:
        more, edge = search.step(after, limit + 1 - len(found), pace.window)
        found += more
        if len(found) > limit:
            found, edge = found[:limit], found[limit - 1]
            break
        if edge is None or not pace.goes_on(len(more), limit + 1 - len(found)):
            break
        after = edge
    return Page(_rows(session, found), edge)


def _rows(session: Session, found: Sequence[Position]) -> list[InspectionRow]:
    """The rows of what was found, in that order."""
    query = select(Row).where(Row.id.in_([one.id for one in found]))
    rows = {row.id: row for row in session.scalars(query)} if found else {}
    return [rows[one.id] for one in found if one.id in rows]


class _Pace:
    """How many candidates each step takes, so that the last one ends when the time does."""

    def __init__(self, budget_s: float | None) -> None:
        self.window = FIRST
        self._budget_s = budget_s
        self._started = self._lap = time.monotonic()

    def goes_on(self, found: int, missing: int) -> bool:
        """After a step that found some: whether there is time for another, and set how large a one."""
        # As many as the missing ones should take, if they are as frequent as before.
        growth = min(_GROWTH, max(1.0, 1.5 * missing / found)) if found else _GROWTH
        if self._budget_s is not None:
            now = time.monotonic()
            left_s, spent_s = self._budget_s - (now - self._started), now - self._lap
            self._lap = now
            growth = min(growth, 0.6 * left_s / max(spent_s, 1e-6))
            if growth < 0.5:
                return False
        self.window = max(FIRST, min(MOST, int(self.window * growth)))
        return True


class _Search:
    """One combination of filters in one order."""

    def __init__(self, session: Session, wanted: Filter, order: Order) -> None:
        self._session = session
        self._order = order
        self._wanted = wanted
        self._since = _FIRST_ID if wanted.since is None else first_id_at(wanted.since)
        self._until = _LAST_ID if wanted.until is None else first_id_at(wanted.until)
        self._last = _LAST_ID  # unlike the one before, this is the id of one that may be wanted
        self._conditions = conditions(wanted)
        if order == "margin" and (self._since, self._until) != (_FIRST_ID, _LAST_ID):
            # In the other orders it is part of each stretch.
            self._conditions["created"] = Condition("id", low=self._since, high=self._until)
        self._few = self._narrow()

    def step(self, after: Position | None, limit: int, window: int) -> tuple[list[Position], Position | None]:
        """Up to `limit` among the next candidates, and where these ended; None at the very end."""
        if self._order == "margin" and self._few:
            return self._read(self._few[0], FEW, limit, after), None
        source = self._farthest(after)
        found = self._read(source, window, limit)
        return found, found[-1] if len(found) == limit else self._edge(source, window)

    def _farthest(self, after: Position | None) -> Source:
        """The source whose next entries reach farthest."""
        sources = list(self._sources(after))
        if len(sources) == 1:
            return sources[0]
        reached = self._session.execute(
            select(*(source.entry(PROBE - 1).scalar_subquery() for source in sources))
        ).one()
        newest = self._order == "newest"
        end = _FIRST_ID if newest else _LAST_ID  # nothing reaches farther than what ends
        ids = [end if found is None else found for found in reached]
        return sources[ids.index(min(ids) if newest else max(ids))]

    def _read(self, source: Source, most: int, limit: int, after: Position | None = None) -> list[Position]:
        """Those of the first `most` candidates that meet all filters; `after` if they are not in order."""
        left = [condition for name, condition in self._conditions.items() if name not in source.covers]
        names = {condition.column for condition in left if condition.column} - {"id"}
        margin = self._order == "margin"
        candidates = source.first(most, names | {"margin"} if margin else names)
        columns = dict(candidates.columns)
        query: Select[Any] = select(columns["id"])
        if not source.has_rows and (names or margin):
            query = query.join_from(candidates.source, Row, Row.id == columns["id"])
            columns |= {name: getattr(Row, name) for name in (*names, "margin")}
        query = query.where(*candidates.within, *(condition.on(columns) for condition in left)).limit(limit)
        if not margin:
            order = candidates.order
            query = query.order_by(*(one.desc() if self._order == "newest" else one.asc() for one in order))
            return [Position(*found) for found in self._session.execute(query)]
        query = query.add_columns(columns["margin"])
        if source in self._few:
            key = columns["margin"], columns["id"]
            query = query.where(columns["margin"].is_not(None)).order_by(*key)
            if after is not None:
                query = query.where(Bound((after.margin, after.id), closed=False).holds(key, above=True))
        else:
            query = query.order_by(*candidates.order)
        return [Position(*found) for found in self._session.execute(query)]

    def _edge(self, source: Source, window: int) -> Position | None:
        """The last candidate of a window; None if there are not so many."""
        key = 2 if self._order == "margin" else 1
        found = self._session.execute(source.entry(window - 1, key)).first()
        return None if found is None else Position(*reversed(found))

    def _sources(self, after: Position | None) -> Iterator[Source]:
        """What yields candidates in the order of the page, after a position."""
        if self._order == "margin":
            yield self._nearest(after)
            return
        newest = self._order == "newest"
        low = Bound((self._since,))
        high = Bound((self._last,)) if self._last < self._until else Bound((self._until,), closed=False)
        if after is not None and newest and after.id <= min(self._last, self._until):
            high = Bound((after.id,), closed=False)
        elif after is not None and after.id >= self._since:
            low = Bound((after.id,), closed=False)
        start, end = (high, low) if newest else (low, high)
        for covers, columns, key in [(frozenset[str](), (Row.id,), ()), *self._equal()]:
            first, last = (Bound((*key, *bound.key), bound.closed) for bound in (start, end))
            yield Stretch(covers, columns, first, last, newest)
        for part in self._few:
            yield Sorted(part, FEW, start, end, newest)

    def _nearest(self, after: Position | None) -> Source:
        key: tuple[Any, ...] = ()
        covers: frozenset[str] = frozenset()
        columns: tuple[Column, ...] = (Row.margin, Row.id)
        if _QUEUE <= set(self._conditions):
            covers, columns = _QUEUE, (Row.review_state, Row.wanted, Row.margin, Row.id)
            key = tuple(self._wanted.equal[name] for name in ("review_state", "wanted"))
        start = (-math.inf, _FIRST_ID) if after is None else (after.margin, after.id)
        return Stretch(covers, columns, Bound((*key, *start), closed=False), Bound(key) if key else None)

    def _equal(self) -> Iterator[tuple[frozenset[str], tuple[Column, ...], tuple[Any, ...]]]:
        """The indexes that serve an equality, and with which key: (filters, columns, values)."""
        for name, value in self._wanted.equal.items():
            yield frozenset({name}), (getattr(Row, name), Row.id), (value,)
        for name, text in self._wanted.attributes.items():
            columns = (AttributeRow.name, AttributeRow.value, AttributeRow.inspection_id)
            yield frozenset({attribute_filter(name)}), columns, (name, text)

    def _sets(self) -> Iterator[Stretch]:
        """The indexes that hold just what a filter lets through, but in another order than the page's."""
        for name, least in (("score", -math.inf), ("captured_at", _LONG_AGO)):
            if (asked := self._conditions.get(name)) is not None:
                low = Bound((least if asked.low is None else asked.low,))
                high = None if asked.high is None else Bound((asked.high,), asked.high_closed)
                yield Stretch(frozenset({name}), (getattr(Row, name), Row.id), low, high)
        if self._order == "margin":
            for covers, columns, key in self._equal():
                yield Stretch(covers, columns, Bound(key), Bound(key))
            if "created" in self._conditions:
                until = Bound((self._until,), closed=False)
                yield Stretch(frozenset({"created"}), (Row.id,), Bound((self._since,)), until)
        elif _QUEUE <= set(self._conditions):
            both = Bound(tuple(self._wanted.equal[name] for name in ("review_state", "wanted")))
            columns = (Row.review_state, Row.wanted, Row.margin, Row.id)
            yield Stretch(_QUEUE, columns, both, both)

    def _narrow(self) -> list[Stretch]:
        """The sets that are small; what others say of where to look narrows the span of arrival."""
        few = []
        for one in self._sets():
            most = FEW if self._order == "margin" else EXTENT
            count, first, last = self._session.execute(one.extent(most + 1)).one()
            if count <= FEW:
                few.append(one)
            if 0 < count <= most and self._order != "margin":
                self._since, self._last = max(self._since, first), min(self._last, last)
        return few
