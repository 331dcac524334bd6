"""Images in, verdicts out, through the commands and calls that a user has, and back out of the database."""

import csv
import hashlib
import json
import sqlite3
from pathlib import Path

import cv2
import httpx
import numpy as np

from tests.e2e.line import Line, tool


def test_bundle_is_complete_and_names_its_data(line: Line) -> None:
    manifest = json.loads((line.bundle / "manifest.json").read_text())
    assert manifest["training_data"]["images"] == 16
    assert set(manifest["profiles"]) == {"paper", "fast"}
    for name, expected in manifest["files"].items():
        assert hashlib.sha256((line.bundle / name).read_bytes()).hexdigest() == expected, name
    with (line.bundle / "audit.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) >= 8


def test_evaluate_measures_the_bundle(line: Line, tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    tool("inlier-trainer", "evaluate", line.bundle, line.parts, "--profile", "fast", "--json", result)
    said = json.loads(result.read_text())
    assert "image_auroc" in json.dumps(said)
    assert "pixel_auroc" in json.dumps(said)


def test_posted_images_come_back_out_of_the_database(line: Line) -> None:
    manifest_hash = hashlib.sha256((line.bundle / "manifest.json").read_bytes()).hexdigest()
    images = sorted(line.parts.glob("test/*/*.png"))
    answers = {}
    for image in images:
        response = line.post(image, serial=f"{image.parent.name}-{image.stem}", lot="L1", station="cam2")
        assert response.status_code == 200, response.text
        answers[response.json()["id"]] = (image, response.json())

    with sqlite3.connect(f"file:{line.data / 'inlier.sqlite3'}?mode=ro", uri=True) as database:
        database.row_factory = sqlite3.Row
        rows = {row["id"]: row for row in database.execute("SELECT * FROM inspections WHERE lot = 'L1'")}
    database.close()
    assert rows.keys() == answers.keys()
    for identifier, (image, answer) in answers.items():
        row = rows[identifier]
        assert (row["status"], row["verdict"]) == ("done", answer["verdict"])
        assert row["verdict"] in ("PASS", "REVIEW", "REJECT")
        assert row["score_raw"] == answer["score"]["raw"]
        assert row["serial"] == f"{image.parent.name}-{image.stem}"
        assert row["model_hash"] == manifest_hash
        assert row["image_sha256"] == hashlib.sha256(image.read_bytes()).hexdigest()


def test_service_and_evaluation_score_alike(line: Line, tmp_path: Path) -> None:
    listed = tmp_path / "scores.csv"
    tool("inlier-trainer", "evaluate", line.bundle, line.parts, "--profile", "fast", "--csv", listed)
    with listed.open(newline="") as file:
        scores = {row["path"]: float(row["raw_score"]) for row in csv.DictReader(file)}
    for image in sorted(line.parts.glob("test/*/000.png")):
        evaluated = next(score for name, score in scores.items() if image.as_posix().endswith(name))
        served = line.post(image, profile="fast").json()["score"]["raw"]
        assert abs(served - evaluated) <= 1e-4 * evaluated, image


def test_the_same_image_gives_the_same_verdict(line: Line) -> None:
    image = sorted(line.parts.glob("test/spot/*.png"))[0]
    first, second = (line.post(image).json() for _ in range(2))
    assert first["id"] != second["id"]
    assert first["score"] == second["score"]
    assert first["verdict"] == second["verdict"]


def test_pictures_of_an_inspection(line: Line) -> None:
    image = sorted(line.parts.glob("test/chip/*.png"))[0]
    answer = line.post(image).json()
    base = f"/v1/inspections/{answer['id']}"
    assert line.get(f"{base}/image").content == image.read_bytes()
    for name in ("reconstruction", "heatmap"):
        picture = cv2.imdecode(
            np.frombuffer(line.get(f"{base}/{name}").content, np.uint8), cv2.IMREAD_UNCHANGED
        )
        assert picture.size > 0, name
    raw = cv2.imdecode(
        np.frombuffer(line.get(f"{base}/heatmap?format=raw").content, np.uint8), cv2.IMREAD_UNCHANGED
    )
    assert raw.dtype == np.uint16
    assert raw.max() == 65535


def test_damaged_image_is_a_problem_and_never_a_pass(line: Line) -> None:
    image = sorted(line.parts.glob("test/good/*.png"))[0]
    response = httpx.post(
        f"{line.url}/v1/inspections", content=image.read_bytes()[:200], headers=line.key, timeout=60
    )
    assert response.status_code == 422
    assert response.headers["content-type"].startswith("application/problem+json")
    assert "PASS" not in response.text


def test_unknown_bundle_is_refused_in_one_line(tmp_path: Path) -> None:
    run = tool("inlier-service", "serve", "--bundle", tmp_path, "--data", tmp_path / "data", expect=2)
    assert "Traceback" not in run.stderr
    assert str(tmp_path) in run.stderr
