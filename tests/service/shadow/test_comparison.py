"""The comparison of a shadow with the active model, on both databases, against the same counts in Python."""

import random
from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest
from sqlalchemy import event, func, select
from sqlalchemy.orm import Session

from service.db.repository import model_life, models, retention, shadow_scores
from service.db.session import Database
from service.db.tables import InspectionRow, ModelEventRow, RecipeRow, ShadowScoreRow
from service.errors import InspectionError
from service.ids import first_id_at
from service.recipes.intervals import wilson
from service.shadow import comparison
from service.shadow.comparison import Comparison, compare
from tests.service.db import rows as make

SHADOW = "b" * 64
COUNT = 200
BEGUN = 20  # seconds after START at which the shadow began


def note(session: Session, action: str, seconds: float, model: str = SHADOW, why: str = "") -> None:
    at = make.START + timedelta(seconds=seconds)
    identifier = first_id_at(at)
    row = ModelEventRow(id=identifier, recipe="bolt", model_hash=model, action=action, who="vera", why=why)
    row.created_at = at
    session.add(row)


def score(inspection: InspectionRow, verdict: str, **values: Any) -> ShadowScoreRow:
    assert inspection.score is not None
    given: dict[str, Any] = {
        "inspection_id": inspection.id,
        "model_hash": SHADOW,
        "recipe": inspection.recipe,
        "profile": "fast",
        "score_raw": 1.0,
        "score": inspection.score + 0.5,
        "review": 3.0,
        "reject": 5.0,
        "verdict": verdict,
        "latency_ms": 10.0 + abs(inspection.score),
        "active_hash": make.MODEL,
        "active_score": inspection.score,
        "active_verdict": inspection.verdict,
        "active_latency_ms": abs(inspection.score),
        "disagrees": verdict != inspection.verdict,
        "created_at": inspection.created_at,
    }
    return ShadowScoreRow(**{**given, **values})


@pytest.fixture
def line(database: Database) -> Database:
    """Two recipes; the shadow of one of them has scored three of four finished inspections."""
    rng = random.Random(0)
    with database.write() as session:
        make.add_model(session)
        make.add_model(session, SHADOW)
        for name in ("bolt", "nut"):
            at = {"created_at": make.START, "updated_at": make.START}
            session.add(RecipeRow(name=name, retention_days=30, reasons=[], **at))
        note(session, model_life.SHADOWED, BEGUN)
        inspections = make.mixed(COUNT)
        make.store(session, inspections)
    for row in inspections:
        done = row.status == "done" and row.recipe == "bolt"
        if done and row.created_at >= make.START + timedelta(seconds=BEGUN) and rng.random() < 0.75:
            assert shadow_scores.add(database, score(row, rng.choice(["PASS", "PASS", "REVIEW", "REJECT"])))
    return database


def found(database: Database, **options: Any) -> Comparison:
    given = {"since": None, "disagreements": False, "before": None, "limit": 500}
    return compare(database, SHADOW, "bolt", **{**given, **options})


def stored(database: Database, since: datetime | None = None) -> list[ShadowScoreRow]:
    """All scores from then on, newest first."""
    with database.read() as session:
        rows = session.scalars(select(ShadowScoreRow)).all()
    first = first_id_at(since or make.START)
    return sorted((row for row in rows if row.inspection_id >= first), key=lambda row: row.inspection_id)[
        ::-1
    ]


def test_counts_are_those_of_the_rows(line: Database) -> None:
    seen, rows = found(line), stored(line)
    assert seen.window is not None
    wanted = [
        row
        for row in make.mixed(COUNT)
        if (row.status, row.recipe) == ("done", "bolt")
        and row.created_at >= make.START + timedelta(seconds=BEGUN)
    ]
    assert (seen.window.eligible, seen.scored) == (len(wanted), len(rows))
    assert 50 < len(rows) < len(wanted)
    assert seen.confusion == Counter((row.active_verdict, row.verdict) for row in rows)
    agreed = sum(row.active_verdict == row.verdict for row in rows)
    assert seen.agreement is not None
    assert seen.agreement.value == agreed / len(rows)
    assert (seen.agreement.low, seen.agreement.high) == wilson(agreed, len(rows))
    latencies = np.array([(row.active_latency_ms, row.latency_ms) for row in rows])
    assert [seen.active.p50_ms, seen.shadow.p50_ms] == pytest.approx(np.median(latencies, axis=0))
    assert seen.shadow.p95_ms == pytest.approx(np.percentile(latencies[:, 1], 95))


@pytest.mark.parametrize("disagreements", [False, True])
def test_pairs_page_by_page(line: Database, disagreements: bool) -> None:
    wanted = [row.inspection_id for row in stored(line) if row.disagrees or not disagreements]
    pages: list[str] = []
    before = None
    while part := found(line, disagreements=disagreements, before=before, limit=7).pairs:
        assert len(part) <= 7
        pages += [pair.score.inspection_id for pair in part]
        before = pages[-1]
    assert pages == wanted
    assert len(wanted) > 14
    states = {row.id: row.review_state for row in make.mixed(COUNT)}
    assert all(pair.review_state == states[pair.score.inspection_id] for pair in found(line).pairs)


def test_only_its_time_as_a_shadow_counts(line: Database) -> None:
    since = make.START + timedelta(seconds=100)
    assert found(line, since=since).scored == len(stored(line, since))
    until = make.START + timedelta(seconds=150)
    with line.write() as session:
        note(session, models.ACTIVATED, 150)
    ended = found(line)
    assert ended.window is not None
    assert ended.window.span.until == until
    assert ended.scored == sum(row.inspection_id < first_id_at(until) for row in stored(line))
    with line.write() as session:
        note(session, model_life.UNSHADOWED, 160)
        note(session, model_life.SHADOWED, 180)
    again = found(line)
    assert again.window is not None
    assert (again.window.span.until, again.scored) == (
        None,
        len(stored(line, make.START + timedelta(seconds=180))),
    )


def test_only_so_many_are_counted(line: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "MOST", 60)
    seen = found(line)
    assert seen.window is not None
    assert not seen.window.whole
    assert seen.window.eligible <= 60
    assert 0 < seen.scored <= seen.window.eligible
    assert len(seen.pairs) == len(stored(line))  # lists go on beyond


def test_without_a_shadow_there_is_nothing_to_compare(line: Database) -> None:
    none = compare(line, make.MODEL, "bolt", since=None, disagreements=False, before=None, limit=5)
    assert (none.window, none.scored, none.agreement, none.pairs) == (None, 0, None, ())
    for model, recipe in (("c" * 64, "bolt"), (SHADOW, "screw")):
        with pytest.raises(InspectionError) as unknown:
            compare(line, model, recipe, since=None, disagreements=False, before=None, limit=5)
        assert unknown.value.status == 404


def test_processes_that_could_not_load_it_are_named(line: Database) -> None:
    with line.write() as session:
        note(session, model_life.UNUSABLE, 30, why="no such folder")
        note(session, model_life.UNUSABLE, 31, model=make.MODEL)
    (failure,) = found(line).failures
    assert (failure.who, failure.why) == ("vera", "no such folder")


def test_a_score_is_stored_once_and_never_without_its_inspection(line: Database) -> None:
    first = stored(line)[0]
    count = len(stored(line))
    inspection = make.row(1, id=first.inspection_id, recipe="bolt", score=1.0)
    assert not shadow_scores.add(line, score(inspection, "REJECT", score=99.0))
    assert not shadow_scores.add(line, score(make.row(COUNT + 5, score=1.0), "PASS"))
    assert len(stored(line)) == count
    assert stored(line)[0].score == first.score


def test_scores_go_with_their_inspections(line: Database) -> None:
    now = make.START + timedelta(days=40)
    limit = retention.Limit("bolt", make.START + timedelta(seconds=120))
    with line.write() as session:
        going = retention.portion(session, limit, now, after="", most=1000)
        assert retention.remove(session, limit, now, going) == len(going) > 50
    left = {row.inspection_id for row in stored(line)}
    with line.read() as session:
        assert left <= set(session.scalars(select(InspectionRow.id)))
        assert session.scalar(select(func.count()).select_from(ShadowScoreRow)) == len(left)
    assert 0 < len(left) < COUNT


def test_every_question_is_answered_from_an_index(line: Database) -> None:
    if line.engine.dialect.name != "sqlite":
        pytest.skip("SQLite says what it does without statistics")
    asked: list[tuple[str, Any]] = []
    event.listen(line.engine, "before_cursor_execute", lambda c, cursor, s, p, *rest: asked.append((s, p)))
    found(line, disagreements=True, before=make.identifier(COUNT))
    found(line)
    plans: list[str] = []
    with line.engine.connect() as connection:
        for statement, parameters in [one for one in asked if one[0].startswith("SELECT")]:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
            plans += [row[3] for row in plan if "shadow_scores" in row[3] or "inspections" in row[3]]
    assert any("ix_shadow_scores_disagrees" in plan for plan in plans)
    assert any("ix_shadow_scores_newest" in plan for plan in plans)
    assert any("ix_inspections_recipe_id" in plan for plan in plans)
    assert not [plan for plan in plans if plan.startswith("SCAN")]
