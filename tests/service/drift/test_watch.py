"""Drift in rows: scores against a real bundle's training images, pictures against the first ones."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from sqlalchemy import event
from starlette.testclient import TestClient

from models.bundle import Bundle
from service.drift.watch import FIRST, DriftWatch, Seen
from service.gauges import Gauges
from service.ids import first_id_at
from tests.service.db import rows as make

BEGUN = datetime.now(UTC) - timedelta(hours=1)


class Line:
    """Writes finished inspections as the service would have."""

    def __init__(self, client: TestClient, bundle: Bundle) -> None:
        self._services, self._hash = client.app.state.services, bundle.hash
        calibration, raw = bundle.manifest.calibration["fast"].score, bundle.training_scores("fast")
        self._scores = np.array([calibration.calibrate(float(one)) for one in raw])
        self._rng, self._count = np.random.default_rng(0), 0
        self.watch: DriftWatch = self._services.drift

    def look(self, watch: DriftWatch | None = None) -> Seen:
        return (watch or self.watch).look("default")

    def inspects(self, count: int, **changed: Callable[[float], Any]) -> None:
        """Images as at the training, but for what `changed` makes of a usual value."""
        rows = []
        for _ in range(count):
            usual = {
                "score": float(self._rng.choice(self._scores)),
                "brightness": float(self._rng.normal(0.5, 0.05)),
                "sharpness": float(self._rng.normal(0.01, 0.001)),
                "image_width_px": 32,
            }
            values = {name: changed.get(name, lambda value: value)(value) for name, value in usual.items()}
            at = BEGUN + timedelta(seconds=self._count)
            identifier = first_id_at(at)[:-4] + f"{self._count:04x}"
            rows.append(make.row(self._count, id=identifier, created_at=at, model_hash=self._hash, **values))
            self._count += 1
        with self._services.database.write() as session:
            session.add_all(rows)


@pytest.fixture
def line(real: TestClient, bundle: Bundle) -> Line:
    return Line(real, bundle)


def alarms(seen: Seen) -> dict[str, bool]:
    return {trait: finding.alarm for trait, finding in seen.findings.items()}


def test_what_is_as_it_was_is_no_drift(line: Line) -> None:
    assert line.look().findings == {}
    line.inspects(150)
    assert line.look().findings == {}  # too few
    line.inspects(250)
    assert alarms(line.look()) == {"score": False}  # no first pictures to compare with yet
    line.inspects(FIRST)
    seen = line.look()
    assert alarms(seen) == dict.fromkeys(("score", "brightness", "sharpness", "size"), False)
    assert seen.findings["brightness"].reference == FIRST
    assert seen.findings["brightness"].sample == 400
    assert (seen.findings["score"].reference, seen.findings["score"].sample) == (24, 900)
    assert line.watch.seen("default") is seen
    assert line.watch.seen("bolt") is None


@pytest.mark.parametrize(
    ("trait", "column", "change"),
    [
        ("score", "score", lambda score: score + 3),
        ("brightness", "brightness", lambda gray: gray - 0.1),
        ("sharpness", "sharpness", lambda focus: focus / 2),
        ("size", "image_width_px", lambda width: width + 8),
    ],
)
def test_each_change_is_seen_and_nothing_else(
    line: Line, trait: str, column: str, change: Callable[[float], Any]
) -> None:
    line.inspects(FIRST)
    line.inspects(1000, **{column: change})
    seen = alarms(line.look())
    assert [name for name, alarm in seen.items() if alarm] == [trait]
    assert len(seen) == 4


def test_an_alarm_falls_later_than_it_rises(line: Line) -> None:
    def between(gray: float) -> float:
        return gray + 0.013  # a quarter of a sigma

    line.inspects(FIRST)
    line.inspects(1000, brightness=between)
    first = line.look().findings["brightness"]
    assert first.falls_at < first.psi < first.rises_at
    assert not first.alarm
    line.inspects(1000, brightness=lambda gray: gray + 0.1)
    assert line.look().findings["brightness"].alarm
    line.inspects(1000, brightness=between)
    assert line.look().findings["brightness"].alarm  # as before, but it has risen
    services = line._services
    assert not line.look(DriftWatch(services.database, services.engines)).findings["brightness"].alarm
    line.inspects(1000)
    assert not line.look().findings["brightness"].alarm


def test_scores_under_another_profile_or_mask_do_not_compare(line: Line) -> None:
    line.inspects(400)
    with line._services.database.write() as session:
        session.connection().exec_driver_sql("UPDATE inspections SET profile = 'paper'")
    assert line.look().findings == {}


def test_a_bundle_that_is_gone_leaves_the_pictures(line: Line, bundle: Bundle) -> None:
    with line._services.database.write() as session:
        session.connection().exec_driver_sql("UPDATE models SET path = '/nowhere'")
    line.inspects(FIRST + 300)
    assert set(line.look().findings) == {"brightness", "sharpness", "size"}


def test_metrics_tell_it(line: Line) -> None:
    line.inspects(FIRST)
    line.inspects(500, brightness=lambda gray: gray - 0.2)
    services = line._services
    own = services.database, services.engines, services.drift, services.metrics
    Gauges(*own).drift()

    def value(name: str, trait: str) -> float | None:
        labels = {"recipe": "default", "trait": trait}
        return services.metrics.registry.get_sample_value(f"inlier_drift_{name}", labels)

    assert (value("alarm", "brightness"), value("alarm", "sharpness")) == (1.0, 0.0)
    assert value("psi", "brightness") == line.watch.seen("default").findings["brightness"].psi


def test_looks_are_bounded_and_on_an_index(line: Line) -> None:
    line.inspects(FIRST + 300)
    asked: list[tuple[str, Any]] = []
    engine = line._services.database.engine

    def listen(_connection: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        if threading.current_thread() is threading.main_thread():  # the service looks at other things, too
            asked.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", listen)
    line.look()
    plans: list[str] = []
    with engine.connect() as connection:
        for statement, parameters in [one for one in asked if "FROM inspections" in one[0]]:
            assert "LIMIT" in statement
            plans += [
                row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            ]
    used = [plan for plan in plans if "inspections" in plan]
    assert len(used) == 2
    assert "ix_inspections_recipe_id" in used[0]
    assert "ix_inspections_model_hash_id" in used[1]
