"""Trials over HTTP: as an inspection of the same image, nothing stored, cameras first, two at once."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select
from starlette.testclient import TestClient

from models.bundle import Bundle
from service.app import create_app
from service.db.session import Database
from service.db.tables import AuditRow, Base, InspectionRow, OutboxRow, ThresholdRow
from service.settings import Settings
from tests.service.batching.engines import StepEngine
from tests.service.conftest import connected, flat, make_key, png, texture
from tests.service.live import live

IMAGE = {"Content-Type": "image/png"}
LONG_S = 60


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


def tried(client: Any, image: bytes, **query: str) -> list[dict[str, Any]]:
    return events(client.post("/try", params=query, content=image, headers=IMAGE))


def eventually(condition: Any) -> None:
    deadline = time.monotonic() + LONG_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("profile", ["paper", "fast"])
def test_a_trial_says_what_an_inspection_says_and_its_film_ends_with_the_reconstruction(
    real: TestClient, bundle: Bundle, profile: str
) -> None:
    image = png(texture(3, (72, 60)))
    begun, *frames, result = tried(real, image, profile=profile)
    inspected = real.post(
        f"/v1/inspections?profile={profile}", content=image, headers={**IMAGE, "Prefer": "wait=60"}
    ).json()
    assert result["event"] == "result"
    assert result["verdict"] == inspected["verdict"]
    assert result["score"] == inspected["score"]["calibrated"]
    reconstruction = real.get(inspected["links"]["reconstruction"]).content
    assert base64.b64decode(frames[-1]["clean"]) == reconstruction
    assert base64.b64decode(result["pictures"]["reconstruction"]) == reconstruction
    difference = real.get(inspected["links"]["difference"]).content
    assert base64.b64decode(result["pictures"]["difference"]) == difference
    spec = bundle.manifest.profiles[profile]
    assert (begun["kind"], begun["steps"]) == (spec.kind, spec.network_calls)
    phases = [frame["phase"] for frame in frames]
    if profile == "paper":
        assert phases == ["noising"] * 8 + ["denoising"] * 6 + ["reconstruction"]
        assert [frame["t"] for frame in frames[:8]] == sorted(frame["t"] for frame in frames[:8])
        assert frames[0]["t"] == 0
    else:
        assert phases == ["denoising"] * 2 + ["reconstruction"]
        assert [frame["t"] for frame in frames] == [25, 100, 0]
    assert set(result["latency_ms"]) == {
        *("decode", "preprocess", "queue", "inference"),
        *("postprocess", "total"),
    }


def counts(settings: Settings) -> dict[str, int]:
    database = Database(settings.url)
    try:
        with database.read() as session:
            tables: tuple[type[Base], ...] = (InspectionRow, ThresholdRow, OutboxRow, AuditRow)
            return {
                table.__tablename__: session.scalar(select(func.count()).select_from(table)) or 0
                for table in tables
            }
    finally:
        database.close()


def test_nothing_is_stored_or_counted(real: TestClient, settings: Settings) -> None:
    real.post("/v1/recipes", json={"name": "bolt"}).raise_for_status()
    before = counts(settings)
    blobs = sorted((settings.data / "blobs").rglob("*"))
    assert tried(real, png(texture(5)), recipe="bolt")[-1]["event"] == "result"
    assert counts(settings) == before
    assert sorted((settings.data / "blobs").rglob("*")) == blobs
    assert real.get("/v1/inspections").json()["items"] == []
    metrics = real.get("/metrics").text
    assert "inlier_inspections_total{" not in metrics
    assert "inlier_accepted_total{" not in metrics


@pytest.mark.parametrize(
    ("image", "query", "status", "code"),
    [
        (b"no image at all", "", 415, "unsupported-format"),
        (png(texture())[:200], "", 422, "damaged-image"),
        (b"", "", 422, "empty-image"),
        (png(texture()), "profile=nope", 422, "unknown-profile"),
        (png(texture()), "recipe=nobodys", 404, "unknown-recipe"),
        (png(texture()), "colour=red", 422, "invalid-parameters"),
    ],
)
def test_what_is_wrong_is_said_as_inspections_say_it(
    real: TestClient, image: bytes, query: str, status: int, code: str
) -> None:
    answer = real.post(f"/try?{query}", content=image, headers={"Content-Type": "application/octet-stream"})
    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:inlier:problem:{code}")
    assert tried(real, png(texture()))[-1]["event"] == "result"  # nothing keeps its seat


def test_cameras_may_not_try(settings: Settings, client: TestClient) -> None:
    camera = make_key(settings, "camera")
    answer = client.post("/try", content=flat(9), headers={**IMAGE, **camera})
    assert answer.status_code == 403
    assert client.get("/try", headers=camera).status_code == 403


def test_an_image_that_the_model_fails_on_ends_with_a_problem(settings: Settings) -> None:
    with connected(settings, StepEngine(poison=7)) as client:
        assert tried(client, flat(7))[-1] == {
            "event": "problem",
            "code": "engine-failed",
            "detail": "the model failed on this image; the log has the reason under its id",
        }
        assert tried(client, flat(8))[-1]["event"] == "result"


@contextmanager
def open_trials(client: httpx.Client, count: int, **query: str) -> Iterator[None]:
    """Trials that have begun and are left at the end."""
    with ExitStack() as stack:
        reading = []  # whoever stops reading has left
        for _ in range(count):
            stream = client.stream("POST", "/try", params=query, content=flat(60), headers=IMAGE)
            lines = stack.enter_context(stream).iter_lines()
            assert json.loads(next(lines))["event"] == "begun"
            reading.append(lines)
        yield


@contextmanager
def served(settings: Settings, engine: StepEngine) -> Iterator[httpx.Client]:
    header = make_key(settings)
    locked = settings.model_copy(update={"auth": "required", "allowed_hosts": None})
    with (
        live(locked, engine) as url,
        httpx.Client(base_url=url, headers=header, timeout=LONG_S) as client,
    ):
        yield client


def test_a_third_trial_is_told_to_wait_and_whoever_leaves_makes_room(settings: Settings) -> None:
    engine = StepEngine(paper=10_000, delay_s=0.002)
    with served(settings, engine) as client:
        with open_trials(client, 2, profile="paper"):
            answer = client.post("/try", content=flat(61), headers=IMAGE)
            assert (answer.status_code, answer.json()["type"]) == (429, "urn:inlier:problem:trials-busy")
            assert int(answer.headers["retry-after"]) > 0
        # Both went away before they had an answer: the engine has nothing more to do for them.
        eventually(lambda: client.post("/try", content=flat(62), headers=IMAGE).status_code == 200)
        eventually(lambda: stands_still(engine))
        assert engine.spent[60] < 10_000


def stands_still(engine: StepEngine) -> bool:
    """Whether nothing is done for the images that left."""
    done = engine.spent[60]
    time.sleep(0.1)
    return engine.spent[60] == done


class Crowded(StepEngine):
    """Each image in a call costs, as on a CPU: sharing one saves nothing."""

    def advance(self, tasks: Any, should_stop: Any = None) -> None:
        time.sleep(0.01 * len(tasks))
        super().advance(tasks, should_stop)


def test_cameras_come_first(settings: Settings) -> None:
    engine = Crowded(paper=80)
    with served(settings, engine) as client, open_trials(client, 1, profile="paper"):
        eventually(lambda: engine.spent[60] > 2)
        answers: list[httpx.Response] = []

        def post(value: int) -> None:
            headers = {**IMAGE, "Prefer": "wait=60"}
            path = "/v1/inspections?profile=paper"
            answers.append(client.post(path, content=flat(value), headers=headers))

        cameras = [threading.Thread(target=post, args=(value,)) for value in (10, 20)]
        for camera in cameras:
            camera.start()
        for camera in cameras:
            camera.join()
        assert [answer.json()["status"] for answer in answers] == ["done", "done"]
        # Both have had all their steps before the trial, which began earlier, had its own.
        assert (engine.spent[10], engine.spent[20]) == (80, 80)
        assert engine.spent[60] < 80
        assert len(client.get("/v1/inspections").json()["items"]) == 2


def test_where_workers_are_separate_the_page_says_so(settings: Settings, bundle: Bundle) -> None:
    nobody = {"redis_url": "redis://127.0.0.1:1/0", "workers_inside": 0, "bundle": bundle.path}
    with TestClient(create_app(settings.model_copy(update=nobody))) as client:
        shown = client.get("/try", headers={"Accept": "text/html"})
        assert shown.status_code == 200
        assert "Nothing can be tried here" in shown.text
        answer = client.post("/try", content=flat(1), headers=IMAGE)
        assert (answer.status_code, answer.json()["type"]) == (409, "urn:inlier:problem:no-engine")
