"""Live images go first, whatever a shadow does: slow, hanging, failing, far behind."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from models.bundle import Bundle
from models.samplers import Cancelled
from service import engine_loader
from service.settings import Settings
from service.shadow import shadows
from service.shadow.traffic import Traffic
from tests.service.batching.engines import StepEngine
from tests.service.conftest import PixelEngine, connected, flat
from tests.service.queue.conftest import PrivateRedis, redis_server
from tests.service.shadow.conftest import compared, metric, until, wish

__all__ = ["redis_server"]  # a fixture
Put = Callable[[PixelEngine], None]
PNG = {"Content-Type": "image/png"}


def post(client: TestClient, value: int, wait_s: int = 30) -> dict[str, Any]:
    headers = {**PNG, "Prefer": f"wait={wait_s}"}
    answer = client.post("/v1/inspections", content=flat(value), headers=headers)
    assert answer.status_code == (200 if wait_s else 202), answer.text
    body: dict[str, Any] = answer.json()
    return body


def test_live_images_are_waited_for() -> None:
    traffic, stop = Traffic(), threading.Event()
    went: list[str] = []

    def shadow() -> None:
        try:
            traffic.wait(stop.is_set)
            went.append("on")
        except Cancelled:
            went.append("away")

    with traffic.live():
        with traffic.live():
            first = threading.Thread(target=shadow)
            first.start()
        first.join(0.2)
        assert went == []
    first.join(10)
    assert went == ["on"]
    with traffic.live():
        second = threading.Thread(target=shadow)
        second.start()
        stop.set()
        traffic.wake()
        second.join(10)
    assert went == ["on", "away"]


def calls_during(client: TestClient, active: PixelEngine, shadow: StepEngine, seconds: float) -> int:
    """Network calls that the shadow begins in the middle of its chain while a live image is in the engine.

    So long or until there are more than three.
    """
    shadow.pause_in(3)
    post(client, 5)
    until(lambda: not shadow.go.is_set(), "the shadow does nothing")
    active.go.clear()
    live = post(client, 6, wait_s=0)
    until(lambda: client.get(live["links"]["self"]).json()["status"] == "running", "the image is not taken")
    shadow.go.set()
    deadline = time.monotonic() + seconds
    while (count := len(shadow.calls) - 4) <= 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    active.go.set()
    until(lambda: client.get(live["links"]["self"]).json()["status"] == "done", "the image does not end")
    return count


def test_a_shadow_yields_between_two_network_calls(
    settings: Settings, second: Bundle, in_its_place: Put
) -> None:
    active, shadow = PixelEngine(), StepEngine(0.02, fast=80)
    in_its_place(shadow)
    with connected(settings, active) as client:
        wish(client, second)
        assert calls_during(client, active, shadow, 0.5) == 0
        until(lambda: compared(client, second)["scored"] == 2, "what was passed over is not scored")
        first = compared(client, second)["items"][-1]
        assert first["shadow"]["score"] == pytest.approx(first["active"]["score"])
        # Its latency is what the engine took: the time in which it yielded does not count.
        assert 80 * 20 <= compared(client, second)["shadow_latency"]["p50_ms"] < 80 * 60


def test_a_shadow_that_does_not_yield_would_be_seen(
    settings: Settings, second: Bundle, in_its_place: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Traffic, "wait", lambda traffic, should_stop: None)
    active, shadow = PixelEngine(), StepEngine(0.02, fast=80)
    in_its_place(shadow)
    with connected(settings, active) as client:
        wish(client, second)
        assert calls_during(client, active, shadow, 60) > 3


def test_a_flood_is_worked_off_first(
    settings: Settings, second: Bundle, in_its_place: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than a worker takes at once; the shadow's calls come when the last of them has ended."""
    monkeypatch.setattr("service.shadow.traffic._QUIET_S", 1.0)  # here a worker may take so long
    active, shadow = PixelEngine(delay_s=0.02), StepEngine(0.01)
    in_its_place(shadow)
    with connected(settings.model_copy(update={"batch_size": 2}), active) as client:
        wish(client, second)
        calls, waiting = len(shadow.calls), []
        admission = client.app.state.services.runtime.admission
        shadow.on_call = lambda call: waiting.append(admission.depth)
        active.go.clear()
        posted = [post(client, value, wait_s=0) for value in range(24)]
        active.go.set()
        until(lambda: compared(client, second)["scored"] == 24, "the shadow does not catch up")
        ended = {client.get(one["links"]["self"]).json()["status"] for one in posted}
    assert ended == {"done"}
    assert len(shadow.calls) == calls + 24
    assert waiting == [0] * 24


def test_the_backlog_is_bounded_and_a_hanging_shadow_holds_nothing_up(
    settings: Settings, second: Bundle, in_its_place: Put
) -> None:
    shadow = StepEngine()
    in_its_place(shadow)
    with connected(settings.model_copy(update={"shadow_backlog": 2}), PixelEngine()) as client:
        wish(client, second)
        shadow.go.clear()
        scorer = client.app.state.services.runtime.scorer
        first = post(client, 1)
        until(lambda: scorer._backlog.empty(), "the first is not taken up")
        rest = [post(client, value) for value in range(2, 10)]
        assert [one["score"]["raw"] for one in (first, *rest)] == list(range(1, 10))
        assert scorer._backlog.qsize() == 2
        assert metric(client, "inlier_shadow_skipped_total") == 6.0
        found = compared(client, second)
        assert (found["eligible"], found["scored"], found["unscored"]) == (9, 0, 9)
        shadow.go.set()
        until(lambda: compared(client, second)["scored"] == 3, "the others are not scored")
        assert compared(client, second)["unscored"] == 6


def test_a_hanging_shadow_is_left_behind(settings: Settings, second: Bundle, in_its_place: Put) -> None:
    """By who wishes another, and by a service that stops."""
    shadow = StepEngine()
    in_its_place(shadow)
    with connected(settings, PixelEngine()) as client:
        wish(client, second)
        shadow.go.clear()
        post(client, 1)
        time.sleep(0.2)
        said = {"recipe": "default", "why": "it hangs"}
        assert client.delete(f"/v1/models/{second.hash}/shadow", params=said).status_code == 200
        until(lambda: metric(client, "inlier_shadow_skipped_total") == 1.0, "it is still waited for")
        wish(client, second)
        post(client, 2)
        stopping = time.monotonic()
    assert time.monotonic() - stopping < 5
    shadow.go.set()


def test_a_shadow_that_does_not_load_is_given_up(
    settings: Settings, second: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadows, "_LOAD_S", 0.2)
    loaded = threading.Event()
    monkeypatch.setattr(engine_loader, "opened", lambda bundle, settings: loaded.wait(60))
    with connected(settings, PixelEngine()) as client:
        wish(client, second, loads=False)
        assert "0 s" in compared(client, second)["failures"][0]["why"]
        assert post(client, 5)["verdict"] == "REVIEW"
    loaded.set()


def test_a_failing_shadow_is_counted_and_goes_on(
    settings: Settings, second: Bundle, in_its_place: Put, caplog: pytest.LogCaptureFixture
) -> None:
    in_its_place(PixelEngine(poison=7))
    with connected(settings, PixelEngine()) as client:
        wish(client, second)
        values = [7, 254, 8, 7]  # 254: the score is not a number, for the active one, too
        bodies = [post(client, value) for value in values]
        assert [body["verdict"] for body in bodies] == ["REVIEW", "ERROR", "REJECT", "REVIEW"]
        until(lambda: compared(client, second)["scored"] == 1, "the good one is not scored")
        until(lambda: metric(client, "inlier_shadow_failed_total") == 2.0, "failures are not counted")
        assert compared(client, second)["eligible"] == 3  # what ended in an ERROR is none of them
    told = [record for record in caplog.records if "failed on an image" in record.message]
    assert [record.levelname for record in told] == ["ERROR"]  # the second is only counted


def test_a_score_that_is_no_number_is_a_failure(
    settings: Settings, second: Bundle, in_its_place: Put
) -> None:
    class Nan(PixelEngine):
        def _answer(self, image: Any, value: int) -> Any:
            return super()._answer(image, 254 if value == 9 else value)

    in_its_place(Nan())
    with connected(settings, PixelEngine()) as client:
        wish(client, second)
        post(client, 9)
        until(lambda: metric(client, "inlier_shadow_failed_total") == 1.0, "it is not counted")
        assert compared(client, second)["scored"] == 0


def test_images_that_came_through_redis(
    settings: Settings, second: Bundle, in_its_place: Put, redis_server: PrivateRedis
) -> None:
    in_its_place(PixelEngine())
    with connected(settings.model_copy(update={"redis_url": redis_server.url}), PixelEngine()) as client:
        wish(client, second)
        posted = [post(client, value)["id"] for value in range(1, 6)]
        until(lambda: compared(client, second)["scored"] == 5, "not all are scored")
        assert [pair["inspection"] for pair in reversed(compared(client, second)["items"])] == posted
