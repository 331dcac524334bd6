"""The whole way of an image: bytes to verdict, on the real engine and on one whose answers are known."""

import hashlib
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from models.bundle import Bundle
from models.decode import decode
from models.engine import open_engine
from models.preprocess import preprocess, to_pixels
from service import render
from service.db.session import Database
from service.settings import Settings
from tests.service.conftest import PixelEngine, connected, flat, png, texture

WAIT = {"Prefer": "wait=30", "Content-Type": "image/png"}


def test_result_is_the_engines(real: TestClient, bundle: Bundle) -> None:
    data = png(texture(3, (48, 40)))
    body = real.post("/v1/inspections", content=data, headers=WAIT).json()
    assert body["status"] == "done"
    seed = int(hashlib.sha256(data).hexdigest()[:16], 16)
    image = preprocess(decode(data), bundle.manifest.preprocess)
    direct = open_engine(bundle, threads=1).run(image[None], [seed], "fast")[0]
    assert body["score"]["raw"] == pytest.approx(direct.score, rel=1e-5)
    calibration = bundle.manifest.calibration["fast"]
    assert body["score"]["calibrated"] == pytest.approx(calibration.score.calibrate(direct.score), rel=1e-4)
    assert body["model"]["hash"] == bundle.hash
    assert {"decode", "store", "queue", "inference", "postprocess", "total"} <= set(body["latency_ms"])

    raw = real.get(body["links"]["heatmap"], params={"format": "raw"}).content
    assert cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_UNCHANGED).dtype == np.uint16
    stored = render.decode_map(raw, body["heatmap"]["scale"])
    np.testing.assert_allclose(stored, direct.map, atol=body["heatmap"]["scale"])
    healthy = decode(real.get(body["links"]["reconstruction"]).content).pixels
    np.testing.assert_array_equal(healthy, to_pixels(direct.reconstruction))
    original = real.get(body["links"]["image"])
    assert (original.content, original.headers["content-type"]) == (data, "image/png")
    assert original.headers["x-content-type-options"] == "nosniff"
    gap = decode(real.get(body["links"]["difference"]).content).pixels[:, :, 0]
    seen = to_pixels(image).astype(int)
    expected = np.clip(np.abs(seen - healthy.astype(int)).mean(axis=2) * 4, 0, 255)
    np.testing.assert_allclose(gap, expected, atol=1)


@pytest.mark.promise(5)
def test_same_image_same_verdict_whatever_shares_its_batch(real: TestClient) -> None:
    data = png(texture(5))
    alone = real.post("/v1/inspections", content=data, headers=WAIT).json()["score"]["raw"]
    posted = [
        real.post("/v1/inspections", content=png(texture(seed)), headers={"Content-Type": "image/png"})
        for seed in (1, 2, 5, 3)
    ]
    again = finished(real, posted[2].json()["id"])
    assert again["score"]["raw"] == pytest.approx(alone, rel=1e-4)


def finished(client: TestClient, identifier: str) -> dict:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        body = client.get(f"/v1/inspections/{identifier}").json()
        if body["verdict"] is not None:
            return body
        time.sleep(0.01)
    raise AssertionError(f"{identifier} did not end: {body}")


@pytest.mark.parametrize(("value", "verdict"), [(1, "PASS"), (5, "REVIEW"), (40, "REJECT")])
def test_verdict_and_regions_agree(client: TestClient, value: int, verdict: str) -> None:
    # score_location .5, score_scale .3: raw 4.06 is the review limit (3), raw 7.39 the reject limit (5)
    body = client.post("/v1/inspections", content=flat(value), headers=WAIT).json()
    assert body["verdict"] == verdict
    assert body["score"]["raw"] == value
    assert (body["thresholds"]["review"], body["thresholds"]["reject"]) == (3.0, 5.0)
    assert body["thresholds"]["version"] == 1
    assert bool(body["regions"]) == (verdict != "PASS")
    if verdict != "PASS":
        assert body["regions"][0] == {
            "x": 0, "y": 0, "width": 32, "height": 32, "area_px": 1024, "peak": value, "mean": value,
        }  # fmt: skip


def test_thresholds_come_from_the_table(client: TestClient, settings: Settings) -> None:
    client.post("/v1/inspections", content=flat(5), headers=WAIT)
    database = Database(settings.url)
    with database.write() as session:
        session.execute(
            text(
                "INSERT INTO thresholds SELECT 'x', recipe, model_hash, profile, 2, 9, 10, 'me', created_at,"
                " 'why' FROM thresholds WHERE profile = 'fast' AND recipe = 'default'"
            )
        )
    database.close()
    body = client.post("/v1/inspections", content=flat(5), headers=WAIT).json()
    assert (body["verdict"], body["thresholds"]["version"], body["thresholds"]["review"]) == ("PASS", 2, 9.0)
    other = client.post("/v1/inspections?recipe=other", content=flat(5), headers=WAIT).json()
    assert (other["verdict"], other["thresholds"]["version"]) == ("REVIEW", 1)


def test_failure_is_an_error_and_never_a_pass(settings: Settings) -> None:
    with connected(settings, PixelEngine(poison=3)) as client:
        for value, code in ((3, "engine-failed"), (254, "engine-output")):
            body = client.post("/v1/inspections", content=flat(value), headers=WAIT).json()
            assert (body["status"], body["verdict"], body["error"]["code"]) == ("failed", "ERROR", code)
            assert body["score"] is None
        assert 'inlier_errors_total{reason="engine-failed"} 1.0' in client.get("/metrics").text


@pytest.mark.promise(2)
def test_unfinished_work_is_taken_up_at_the_next_start(settings: Settings) -> None:
    engine = PixelEngine()
    short = settings.model_copy(update={"shutdown_grace_s": 0.05, "batch_size": 2})
    png_type = {"Content-Type": "image/png"}
    with connected(short, engine) as client:
        done = client.post("/v1/inspections", content=flat(9), headers=WAIT).json()
        engine.go.clear()
        ids = [
            client.post("/v1/inspections", content=flat(value), headers=png_type).json()["id"]
            for value in range(10, 15)
        ]
    lost = hashlib.sha256(flat(12)).hexdigest()
    (short.data / "blobs" / lost[:2] / lost).unlink()
    second = PixelEngine()
    with connected(short, second) as client:
        results = {identifier: finished(client, identifier) for identifier in ids}
        assert client.get(f"/v1/inspections/{done['id']}").json() == done
    scores = [results[identifier]["score"] for identifier in ids]
    assert [score and score["raw"] for score in scores] == [10, 11, None, 13, 14]
    assert results[ids[2]]["error"]["code"] == "image-missing"
    assert 9 not in [value for _, values in second.batches for value in values]


def test_unfinished_work_from_a_later_clock_is_taken_up_too(settings: Settings) -> None:
    """After a reboot with the clock set back, what waits was made in the future."""
    engine = PixelEngine()
    short = settings.model_copy(update={"shutdown_grace_s": 0.05})
    with connected(short, engine) as client:
        engine.go.clear()
        old = client.post("/v1/inspections", content=flat(9), headers={"Content-Type": "image/png"}).json()[
            "id"
        ]
    later = "ffff0000-0000-7000-8000-000000000000"
    database = Database(short.url)
    with database.write() as session:
        session.execute(text("UPDATE inspections SET id = :new WHERE id = :old"), {"new": later, "old": old})
    database.close()
    with connected(short, PixelEngine()) as client:
        assert finished(client, later)["score"]["raw"] == 9


@pytest.mark.promise(1)
@pytest.mark.timeout(60)
def test_row_and_image_exist_before_the_answer(
    client: TestClient, engine: PixelEngine, settings: Settings
) -> None:
    engine.go.clear()
    data = flat(7)
    answer = client.post("/v1/inspections", content=data, headers={"Content-Type": "image/png"})
    assert answer.status_code == 202
    database = Database(settings.url)
    with database.read() as session:
        query = text("SELECT image_sha256 FROM inspections WHERE id = :id")
        name = session.execute(query, {"id": answer.json()["id"]}).scalar_one()
    database.close()
    assert (settings.data / "blobs" / name[:2] / name).read_bytes() == data
    engine.go.set()


def test_no_picture_before_the_end(client: TestClient, engine: PixelEngine) -> None:
    engine.go.clear()
    answer = client.post("/v1/inspections", content=flat(7), headers={"Content-Type": "image/png"}).json()
    page = client.get(answer["links"]["page"]).text
    assert 'http-equiv="refresh"' in page
    missing = client.get(f"{answer['links']['self']}/heatmap")
    assert (missing.status_code, missing.json()["type"]) == (404, "urn:inlier:problem:no-picture")
    engine.go.set()
    finished(client, answer["id"])
    assert 'http-equiv="refresh"' not in client.get(answer["links"]["page"]).text


def test_heatmap_colours_are_fixed_and_saturate(client: TestClient) -> None:
    def colour(value: int) -> list[int]:
        body = client.post("/v1/inspections", content=flat(value), headers=WAIT).json()
        return decode(client.get(body["links"]["heatmap"]).content).pixels[0, 0].tolist()

    top = decode(client.get("/legend.png").content, min_side_px=1).pixels[0]
    assert colour(2) == top[128].tolist()  # map_max is 4
    assert colour(4) == colour(90) == top[255].tolist()


def test_same_bytes_are_stored_once(client: TestClient, settings: Settings) -> None:
    def blobs() -> set[Path]:
        return {path for path in (settings.data / "blobs").rglob("*") if path.is_file()}

    client.post("/v1/inspections", content=flat(7), headers=WAIT)
    first = blobs()
    client.post("/v1/inspections", content=flat(7), headers=WAIT)
    assert blobs() == first
