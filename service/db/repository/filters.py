"""Which inspections are wanted, and what each filter asks of a row."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, case, inspect, literal, select
from sqlalchemy.orm import aliased

from service.db.tables import AttributeRow, InspectionRow
from service.ids import first_id_at

_Other = aliased(AttributeRow)  # candidates may be entries of the same table


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


@dataclass(frozen=True)
class Condition:
    """What one filter asks of a row: a column equal or within bounds, or an attribute that has a text."""

    column: str = ""
    attribute: str = ""
    equal: Any = None
    low: Any = None
    high: Any = None
    high_closed: bool = False

    def on(self, columns: Mapping[str, Any]) -> ColumnElement[bool]:
        """As a condition on columns by name, the inspection's `id` among them."""
        # In a form that no planner looks into: it is not to choose another index because of it.
        return case((self._plain(columns), 1), else_=0) == 1

    def _plain(self, columns: Mapping[str, Any]) -> ColumnElement[bool]:
        if self.attribute:
            # One looked up for each row: as EXISTS it would tempt a planner to read all that there are.
            is_it = (_Other.name == self.attribute, _Other.value == self.equal)
            of_row = select(literal(1)).where(*is_it, _Other.inspection_id == columns["id"])
            return and_(of_row.scalar_subquery() == 1)
        column = columns[self.column]
        if self.equal is not None:
            return and_(column == self.equal)
        parts = [] if self.low is None else [column >= self.low]
        if self.high is not None:
            parts.append(column <= self.high if self.high_closed else column < self.high)
        return and_(*parts)


def conditions(wanted: Filter) -> dict[str, Condition]:
    """Each filter, but that of arrival."""
    found = {name: Condition(name, equal=value) for name, value in wanted.equal.items()}
    for name, text in wanted.attributes.items():
        found[attribute_filter(name)] = Condition(attribute=name, equal=text)
    if wanted.score_min is not None or wanted.score_max is not None:
        found["score"] = Condition("score", low=wanted.score_min, high=wanted.score_max, high_closed=True)
    if wanted.captured_since is not None or wanted.captured_until is not None:
        found["captured_at"] = Condition("captured_at", low=wanted.captured_since, high=wanted.captured_until)
    return found


def on_rows(wanted: Filter) -> list[ColumnElement[bool]]:
    """All of a filter as conditions on a row, for queries that bring an index of their own."""
    columns = {column.key: getattr(InspectionRow, column.key) for column in inspect(InspectionRow).columns}
    parts = [condition.on(columns) for condition in conditions(wanted).values()]
    if wanted.since is not None:
        parts.append(InspectionRow.id >= first_id_at(wanted.since))
    if wanted.until is not None:
        parts.append(InspectionRow.id < first_id_at(wanted.until))
    return parts


def attribute_filter(name: str) -> str:
    """What the filter by an attribute is called among the others."""
    return f"attr.{name}"
