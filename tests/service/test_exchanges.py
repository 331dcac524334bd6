"""Models exchanged and rolled back under load: no errors, and rows name the model that made their result."""

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

import service.runner
from models.bundle import Bundle
from service.db.session import Database
from service.db.tables import ModelEventRow, ModelRow
from service.errors import InspectionError
from service.settings import Settings
from tests.long import LONG
from tests.service.test_engines import WHO, call, post, register, variant

TIMES = 120 if LONG else 3  # activations, and as many rollbacks
PAUSE_S = 0.05 if LONG else 0.3
DAMAGED_EVERY = 10
SEEDS = range(3)


@pytest.fixture
def second(bundle: Bundle, tmp_path: Path) -> Bundle:
    """Another model: it looks at the same image with other noise, and so gives another score."""
    fast = bundle.manifest.profiles["fast"].model_copy(update={"timesteps": (60.0, 180.0)})
    profiles = {**bundle.manifest.profiles, "fast": fast}
    return variant(bundle, tmp_path / "second", "2", profiles=profiles)


@pytest.fixture
def damaged(bundle: Bundle, tmp_path: Path) -> Bundle:
    return variant(bundle, tmp_path / "damaged", "3")


@dataclass
class Load:
    """Three clients in a closed loop, each with an image of its own, until `end`."""

    client: TestClient
    answers: list[tuple[int, dict[str, Any]]] = field(default_factory=list)  # seed of the image, body
    failures: list[Exception] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._post, args=(seed,)) for seed in SEEDS]
        for thread in self._threads:
            thread.start()

    def _post(self, seed: int) -> None:
        try:
            while not self._stop.is_set():
                self.answers.append((seed, post(self.client, seed=seed)))
        except Exception as error:
            self.failures.append(error)

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def exchanged(client: TestClient, second: Bundle, times: int, pause_s: float) -> tuple[Load, list[str]]:
    """So many activations and rollbacks under load -> the load, and the answers that name a wrong model."""
    own = {seed: post(client, seed=seed)["score"]["raw"] for seed in SEEDS}
    call(client, "activate", "default", second.hash, WHO, "better")
    other = {seed: post(client, seed=seed)["score"]["raw"] for seed in SEEDS}
    call(client, "rollback", "default", WHO, "worse")
    assert all(abs(own[seed] - other[seed]) > 0.01 * own[seed] for seed in SEEDS), (own, other)
    load = Load(client)
    try:
        for _ in range(times):
            call(client, "activate", "default", second.hash, WHO, "better")
            time.sleep(pause_s)
            call(client, "rollback", "default", WHO, "worse")
            time.sleep(pause_s)
    finally:
        load.end()
    wrong = []
    for seed, body in load.answers:
        expected = other[seed] if body["model"]["hash"] == second.hash else own[seed]
        if body["score"]["raw"] != pytest.approx(expected, rel=1e-3):
            wrong.append(f"{body['id']}: {body['score']['raw']}, its model says {expected}")
    return load, wrong


@pytest.mark.promise(14)
@pytest.mark.timeout(900 if LONG else 300)
def test_exchanges_and_rollbacks_under_load(
    real: TestClient,
    bundle: Bundle,
    second: Bundle,
    settings: Settings,
    record_property: Callable[[str, object], None],
) -> None:
    register(real, second.path)
    load, wrong = exchanged(real, second, TIMES, PAUSE_S)
    bodies = [body for _, body in load.answers]
    record_property("exchanges under load", 2 * TIMES)
    record_property("inspected meanwhile", len(bodies))
    assert load.failures == []
    assert wrong == []
    assert {body["status"] for body in bodies} == {"done"}
    assert {body["model"]["hash"] for body in bodies} == {bundle.hash, second.hash}
    assert post(real)["model"]["hash"] == bundle.hash
    database = Database(settings.url)
    with database.read() as session:
        events = [row.action for row in session.query(ModelEventRow).order_by(ModelEventRow.id)]
        states = {row.hash: row.state for row in session.query(ModelRow)}
        rows = session.execute(
            text("SELECT DISTINCT status, model_hash, model_version FROM inspections ORDER BY model_version")
        ).all()
    database.close()
    assert rows == [("done", bundle.hash, "1"), ("done", second.hash, "2")]
    assert events == ["registered", *["activated", "rolled-back"] * (TIMES + 1)]
    assert states == {bundle.hash: "active", second.hash: "retired"}
    for _ in range(100):
        shown = real.get("/metrics").text
        if second.hash not in shown:
            break
        time.sleep(0.1)
    assert (bundle.hash in shown, second.hash in shown) == (True, False)  # dropped when drained


@pytest.mark.promise(14)
def test_damaged_bundles_change_nothing_under_load(
    real: TestClient,
    bundle: Bundle,
    damaged: Bundle,
    record_property: Callable[[str, object], None],
) -> None:
    register(real, damaged.path)
    with (damaged.path / "model.onnx").open("ab") as file:
        file.write(b"x")
    times = max(3, TIMES // DAMAGED_EVERY)
    load = Load(real)
    try:
        for _ in range(times):
            with pytest.raises(InspectionError, match="sha256"):
                call(real, "activate", "default", damaged.hash, WHO, "better")
            time.sleep(0.1)
    finally:
        load.end()
    record_property("damaged bundles refused under load", times)
    assert load.failures == []
    assert {body["model"]["hash"] for _, body in load.answers} == {bundle.hash}
    assert {body["status"] for _, body in load.answers} == {"done"}


@pytest.mark.promise(14, control=True)
def test_naming_the_new_model_for_a_result_of_the_old_would_be_noticed(
    real: TestClient, second: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    conclude, engines = service.runner.conclude, real.app.state.services.engines

    async def name_who_serves_now(ledger: Any, row: Any, *arguments: Any, **options: Any) -> dict[str, Any]:
        await asyncio.sleep(0.1)  # a model is exchanged meanwhile
        values = await conclude(ledger, row, *arguments, **options)
        return {**values, **engines.serving(row.recipe).columns}

    register(real, second.path)
    monkeypatch.setattr(service.runner, "conclude", name_who_serves_now)
    load, wrong = exchanged(real, second, 2, 0.2)
    assert load.failures == []
    assert wrong != []
