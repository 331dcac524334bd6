"""How long pages take, and how many requests it takes until one is full or nothing is left."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from sqlalchemy import event

from deploy.bench.db.questions import Question
from service.api.schemas import PageOut, document
from service.db.repository import search
from service.db.repository.search import Page
from service.db.session import Database

LIMIT = 50  # rows of a page, as when none is asked for


@dataclass
class Measured:
    """One question: what each round took, and the page it got."""

    question: Question
    spent_ms: list[float] = field(default_factory=list)
    rows: int = 0
    more: bool = False
    requests: int = 1  # until there was a full page or nothing left

    @property
    def median_ms(self) -> float:
        return float(np.median(self.spent_ms))

    @property
    def short(self) -> bool:
        """Whether the search paused before the page was full."""
        return self.more and self.rows < LIMIT


def ask(database: Database, question: Question, after: search.Position | None, limit: int = LIMIT) -> Page:
    """The page, written out as the API does it."""
    with database.read() as session:
        page = search.page(
            session,
            question.wanted,
            limit=limit,
            order=question.order,
            after=after,
            budget_s=search.BUDGET_S,
        )
    PageOut(items=[document(row) for row in page.rows], next=None).model_dump_json()
    return page


def measure(database: Database, asked: Sequence[Question], rounds: int) -> list[Measured]:
    """All questions `rounds` times, in the same order; each page of a question must be the same."""
    found = [Measured(question) for question in asked]
    for _ in range(rounds):
        for one in found:
            started = time.perf_counter()
            page = ask(database, one.question, one.question.after)
            one.spent_ms.append((time.perf_counter() - started) * 1000)
            one.rows, one.more = len(page.rows), page.next is not None
    return found


def follow(database: Database, one: Measured, most: int = 1000) -> int:
    """Requests until a page's worth of rows was found or nothing is left."""
    rows, after = 0, one.question.after
    for number in range(1, most + 1):
        page = ask(database, one.question, after)
        rows += len(page.rows)
        if page.next is None or rows >= LIMIT:
            return number
        after = page.next
    return most


def statements(database: Database, question: Question) -> list[tuple[str, object]]:
    """What the database is asked for a page, with the values, in order."""
    seen: list[tuple[str, object]] = []

    def note(_c: object, _cursor: object, statement: str, values: object, _context: object, _m: bool) -> None:
        seen.append((statement, values))

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        ask(database, question, question.after)
    finally:
        event.remove(database.engine, "before_cursor_execute", note)
    return seen


def explained(database: Database, question: Question) -> list[str]:
    """How the database goes about each statement of a page; PostgreSQL also says what that took."""
    postgres = database.engine.dialect.name == "postgresql"
    how = "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, COSTS OFF)" if postgres else "EXPLAIN QUERY PLAN"
    found = []
    for statement, values in statements(database, question):
        with database.engine.connect() as connection:
            rows = connection.exec_driver_sql(f"{how} {statement}", values).all()  # type: ignore[call-overload]
        lines = [str(row[-1]) for row in rows]
        found.append("\n".join([" ".join(statement.split()), *(f"    {line}" for line in lines)]))
    return found
