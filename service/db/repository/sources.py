"""Indexes as sources of candidates for a page: so many entries from a place on, and no work beyond that.

Which index is used must not rest on what a database guesses about the data. So an index is entered by
comparing its whole key as a row, `(line, id) < ('A', ...)`, and sorted by its whole key: no other index has
that order (`insist_on_order`: and none is sorted into it). And what is read of it is limited in a subquery,
so that nothing in the rest of the query can make another way look cheaper. Where the stretch ends is asked of
the entries that were read: as a condition on the index it would let PostgreSQL, which stops at the first
column of a row only, read to the table's end.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from sqlalchemy import ColumnElement, Select, Subquery, func, literal, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from service.db.tables import InspectionRow

Column = InstrumentedAttribute[Any]


def insist_on_order(session: Session) -> None:
    """For this transaction: PostgreSQL sorts only where no index has the order that is asked for.

    It takes a comparison of rows for one of their first columns, so it may expect next to nothing of half the
    table, and read all of that by an index that only looks small.
    """
    if session.get_bind().dialect.name == "postgresql":
        names = ("enable_sort", "enable_incremental_sort")
        session.execute(select(*(func.set_config(name, "off", True) for name in names)))


class Source(Protocol):
    """Candidates in the order of the page, all of which meet the filters that `covers` names."""

    @property
    def covers(self) -> frozenset[str]: ...

    @property
    def has_rows(self) -> bool:
        """Whether candidates come with columns of their rows."""

    def first(self, most: int, names: Collection[str]) -> "Candidates":
        """The first candidates, where they have rows with those columns of them."""

    def entry(self, number: int, key: int = 1) -> Select[Any]:
        """The last columns of the key, the id the last, at a number from 0; nothing if there is none."""


@dataclass(frozen=True)
class Candidates:
    """Some entries of an index: columns by name, `id` always; their order; and whether they belong to it."""

    columns: Mapping[str, ColumnElement[Any]]
    order: Sequence[ColumnElement[Any]]
    within: Sequence[ColumnElement[bool]]
    source: Subquery


@dataclass(frozen=True)
class Bound:
    """One end of a stretch: a key or the beginning of one, and whether it belongs to the stretch."""

    key: tuple[Any, ...]
    closed: bool = True

    def holds(self, columns: Sequence[Any], *, above: bool) -> ColumnElement[bool]:
        """That columns lie above the bound, or else below it."""
        mine = columns[: len(self.key)]
        values = tuple_(*(literal(v, column.type) for v, column in zip(self.key, mine, strict=True)))
        key: Any = tuple_(*mine)
        if above:
            found = key >= values if self.closed else key > values
        else:
            found = key <= values if self.closed else key < values
        return cast(ColumnElement[bool], found)


@dataclass(frozen=True)
class Stretch:
    """A part of an index from a key on, up or down, to another."""

    covers: frozenset[str]
    columns: tuple[Column, ...]  # of the index, the inspection's id last
    start: Bound
    end: Bound | None = None
    down: bool = False

    @property
    def has_rows(self) -> bool:
        return self.columns[-1] is InspectionRow.id

    def first(self, most: int, names: Collection[str]) -> Candidates:
        return self._candidates(self._entries(names).limit(most))

    def entry(self, number: int, key: int = 1) -> Select[Any]:
        found = self._candidates(self._entries(()).offset(number).limit(1))
        return select(*found.order[-key:]).where(*found.within)

    def extent(self, most: int) -> Select[int, Any, Any]:
        """How many entries there are, up to `most`, and the first and last id among them."""
        found = self._candidates(self._entries(()).limit(most))
        key = found.order[-1]
        return select(func.count(), func.min(key), func.max(key)).where(*found.within)

    def _entries(self, names: Collection[str]) -> Select[Any]:
        key = [column.label(f"key_{number}") for number, column in enumerate(self.columns)]
        rest = [getattr(InspectionRow, name).label(name) for name in sorted(names)] if self.has_rows else []
        query = select(*key, *rest).where(self.start.holds(self.columns, above=not self.down))
        return query.order_by(*(one.desc() if self.down else one.asc() for one in self.columns))

    def _candidates(self, query: Select[Any]) -> Candidates:
        found = query.subquery("candidates")
        key = list(found.c)[: len(self.columns)]
        within = [] if self.end is None else [self.end.holds(key, above=self.down)]
        return Candidates({**found.c, "id": key[-1]}, key, within, found)


@dataclass(frozen=True)
class Sorted:
    """A part of an index, not longer than `most`, sorted by id; from an id on, up or down, to another."""

    stretch: Stretch
    most: int
    start: Bound
    end: Bound
    down: bool
    has_rows: bool = False

    @property
    def covers(self) -> frozenset[str]:
        return self.stretch.covers

    def first(self, most: int, names: Collection[str]) -> Candidates:
        found = self._entries().limit(most).subquery("candidates")
        return Candidates({"id": found.c.id}, [found.c.id], [], found)

    def entry(self, number: int, key: int = 1) -> Select[Any]:
        return self._entries().offset(number).limit(1)

    def _entries(self) -> Select[Any]:
        part = self.stretch.first(self.most, ())
        key = part.columns["id"]
        here = (self.start.holds([key], above=not self.down), self.end.holds([key], above=self.down))
        query = select(key.label("id")).where(*part.within, *here)
        return query.order_by(key.desc() if self.down else key.asc())
