"""What a shadow says is what it says when it inspects, and what inspects says what it says alone."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from models.bundle import Bundle, Thresholds
from service.model_life import ModelBook
from service.recipes.limits import Limits, Place
from service.settings import Settings
from tests.service.conftest import connected, png
from tests.service.shadow.conftest import RECIPE, compared, metric, until, wish
from tests.service.test_engines import WHO, call, post

SEEDS = range(6)


def scored(client: TestClient, bundle: Bundle, count: int) -> dict[str, Any]:
    until(lambda: compared(client, bundle)["scored"] >= count, f"{count} are not scored", 60)
    return compared(client, bundle)


def seen(inspection: dict[str, Any]) -> dict[str, Any]:
    """What an inspection found, without names and times."""
    return {name: inspection[name] for name in ("verdict", "score", "regions", "heatmap", "profile")}


@pytest.mark.parametrize("masked", [False, True])
def test_a_shadow_says_what_it_says_when_it_inspects(real: TestClient, larger: Bundle, masked: bool) -> None:
    """To the bit, although it wants another input than the model that inspects."""
    if masked:
        area = np.zeros((32, 32), dtype=np.uint8)
        area[:20] = 255
        answer = real.put(
            f"/v1/recipes/{RECIPE}/mask?why=x", content=png(area), headers={"Content-Type": "image/png"}
        )
        assert answer.status_code == 201, answer.text
    alone = [seen(post(real, seed=seed)) for seed in SEEDS]
    wish(real, larger)
    assert [seen(post(real, seed=seed)) for seed in SEEDS] == alone
    found = scored(real, larger, len(SEEDS))
    assert (found["eligible"], found["scored"], found["unscored"]) == (len(SEEDS), len(SEEDS), 0)
    shadows = [pair["shadow"] for pair in reversed(found["items"])]
    call(real, "activate", RECIPE, larger.hash, WHO, "better")
    actives = [post(real, seed=seed) for seed in SEEDS]
    for shadow, active in zip(shadows, actives, strict=True):
        assert active["model"]["hash"] == shadow["model_hash"] == larger.hash
        assert shadow["score"] == active["score"]["calibrated"]
        assert shadow["verdict"] == active["verdict"]
    assert len({shadow["score"] for shadow in shadows}) == len(SEEDS)
    assert [pair["active"]["score"] for pair in reversed(found["items"])] == [
        one["score"]["calibrated"] for one in alone
    ]


def test_what_was_prepared_is_used_again(
    real: TestClient, second: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same network, so the same scores; and nothing is read again."""
    wish(real, second)
    posted = [post(real, seed=seed) for seed in SEEDS]
    found = scored(real, second, len(SEEDS))
    assert [pair["shadow"]["score"] for pair in reversed(found["items"])] == [
        one["score"]["calibrated"] for one in posted
    ]
    assert found["agreement"]["value"] == 1.0
    assert found["shadow_latency"]["p50_ms"] > 0
    assert found["active_latency"]["p50_ms"] > 0

    async def never(*arguments: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(real.app.state.services.runtime.scorer._runner, "load", never)
    post(real, seed=9)
    assert scored(real, second, len(SEEDS) + 1)["unscored"] == 0
    assert metric(real, "inlier_shadow_failed_total") in (None, 0.0)


def test_its_own_limits_decide(real: TestClient, second: Bundle, tmp_path: Path) -> None:
    wish(real, second)
    inspection = post(real)
    (pair,) = scored(real, second, 1)["items"]
    assert pair["shadow"]["verdict"] == inspection["verdict"]
    score, calibration = pair["shadow"]["score"], second.manifest.calibration["fast"]
    place = Place(RECIPE, second.hash, "fast", calibration.suggested, calibration.images)
    limits = Limits(real.app.state.services.database)
    assert limits.in_force(place).version == 0  # scoring did not make a version of the suggestion
    strict = Thresholds(review=score - 2, reject=score - 1)
    limits.set(WHO, place, strict, why="strict", based_on=0)
    again = post(real)
    assert (again["verdict"], again["score"]) == (inspection["verdict"], inspection["score"])
    found = scored(real, second, 2)
    assert [one["shadow"]["verdict"] for one in found["items"]] == ["REJECT", inspection["verdict"]]
    (disagreement,) = compared(real, second, only="disagreements")["items"]
    assert disagreement["inspection"] == again["id"]
    assert found["agreement"]["value"] == 0.5
    cells = {(cell["active"], cell["shadow"]): cell["count"] for cell in found["confusion"]}
    assert len(cells) == 9
    assert cells[inspection["verdict"], "REJECT"] == 1
    assert metric(real, "inlier_shadow_disagreements_total") == 1.0


def test_the_recipes_profile_or_the_shadows_own(real: TestClient, second: Bundle, tmp_path: Path) -> None:
    recipe = real.get(f"/v1/recipes/{RECIPE}").json()
    changed = {"profile": "paper", "revision": recipe["revision"]}
    assert real.patch(f"/v1/recipes/{RECIPE}", json=changed).status_code == 200
    wish(real, second)
    until(
        lambda: real.app.state.services.engines.wish(RECIPE).profile == "paper", "the recipe is not followed"
    )
    inspection = post(real)
    (pair,) = scored(real, second, 1)["items"]
    assert inspection["profile"] == "paper"
    assert pair["shadow"]["score"] == inspection["score"]["calibrated"]


@pytest.mark.promise(14)
def test_the_swap_of_a_shadow_fails_no_request(real: TestClient, bundle: Bundle, second: Bundle) -> None:
    wish(real, second)
    bodies: list[dict[str, Any]] = []
    failures: list[Exception] = []
    stop = threading.Event()

    def load(worker: int) -> None:
        try:
            while not stop.is_set():
                bodies.append(post(real, seed=worker))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=load, args=(worker,)) for worker in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(2):
            said = {"recipe": RECIPE, "why": "it agrees"}
            count = len(bodies)
            assert real.post(f"/v1/models/{second.hash}/activate", json=said).status_code == 200
            until(lambda count=count: len(bodies) > count + 3, "nothing is inspected")
            back = real.post("/v1/models/rollback", json={**said, "why": "worse"})
            assert back.json()["model_hash"] == bundle.hash
            assert real.post(f"/v1/models/{second.hash}/shadow", json=said).status_code == 200
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert {body["status"] for body in bodies} == {"done"}
    assert {body["model"]["hash"] for body in bodies} == {bundle.hash, second.hash}
    states = {model["hash"]: model["state"] for model in real.get("/v1/models").json()["items"]}
    assert states == {bundle.hash: "active", second.hash: "shadow"}
    until(lambda: metric(real, "inlier_shadow_loaded") == 1.0, "it does not shadow again")
    post(real)
    assert scored(real, second, 1)["shadowing"]


def test_a_shadow_is_dropped_when_it_is_wished_no_longer(real: TestClient, second: Bundle) -> None:
    wish(real, second)
    post(real)
    scored(real, second, 1)
    end = real.delete(f"/v1/models/{second.hash}/shadow", params={"recipe": RECIPE, "why": "enough"})
    assert end.json()["state"] == "candidate"
    until(lambda: metric(real, "inlier_shadow_loaded") is None, "the shadow stays")
    post(real)
    found = compared(real, second)
    assert (found["shadowing"], found["eligible"], found["scored"]) == (False, 1, 1)


def test_a_damaged_shadow_is_told_and_disturbs_nothing(real: TestClient, second: Bundle) -> None:
    before = seen(post(real))
    file = second.path / "model.onnx"
    whole = file.read_bytes()
    ModelBook(real.app.state.services.database).register(WHO, second.path)
    file.write_bytes(whole + b"x")
    said = {"recipe": RECIPE, "why": "compare"}
    assert real.post(f"/v1/models/{second.hash}/shadow", json=said).status_code == 200
    until(lambda: metric(real, "inlier_shadow_loaded") == 0.0, "nothing is told")
    assert seen(post(real)) == before
    found = compared(real, second)
    assert [failure["why"] for failure in found["failures"]] == [
        "the bundle cannot be served: model.onnx in "
        f"{second.path.resolve()} does not match its sha256 in the manifest"
    ]
    assert (found["eligible"], found["scored"]) == (1, 0)
    assert metric(real, "inlier_shadow_skipped_total") == 1.0
    file.write_bytes(whole)
    real.delete(f"/v1/models/{second.hash}/shadow", params=said)
    until(lambda: metric(real, "inlier_shadow_loaded") is None, "the wish is not dropped")
    wish(real, second)  # who repairs it wishes it anew
    post(real)
    assert scored(real, second, 1)["failures"] == []


def test_a_backlog_of_nothing_turns_shadows_off(settings: Settings, bundle: Bundle, second: Bundle) -> None:
    off = settings.model_copy(update={"bundle": bundle.path, "threads": 1, "shadow_backlog": 0})
    with connected(off) as client:
        ModelBook(client.app.state.services.database).register(WHO, second.path)
        said = {"recipe": RECIPE, "why": "compare"}
        assert client.post(f"/v1/models/{second.hash}/shadow", json=said).status_code == 200
        call(client, "refresh")
        post(client)
        assert metric(client, "inlier_shadow_loaded") is None
        assert compared(client, second)["unscored"] == 1
