"""A line that learns: its own images train a candidate, which shadows, takes over, and is taken back."""

import csv
import json
import time
from pathlib import Path

import httpx
import pytest

from deploy.processes import BIN
from tests.e2e.line import Line, tool

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
RECIPE = "washer"
# Sixteen images prove nothing; this is about the way, not about the model at its end.
QUICK = ("--option", "--steps 20", "--gate-option", "--least-golden 0 --latency-limit 50")


def change(line: Line, method: str, path: str, body: dict[str, str]) -> dict[str, object]:
    answer = httpx.request(method, f"{line.url}{path}", json=body, headers=line.key, timeout=120)
    assert answer.is_success, answer.text
    return dict(answer.json())


def inspected_by(line: Line, image: Path) -> str:
    answer = line.post(image, recipe=RECIPE)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["model"]["hash"])


def test_from_the_lines_own_images_to_a_new_model_and_back(line: Line, tmp_path: Path) -> None:
    change(line, "POST", "/v1/recipes", {"name": RECIPE})
    images = sorted(line.parts.glob("train/**/*.png"))
    (base,) = {inspected_by(line, image) for image in images}
    command = ("retrain", RECIPE, "--data", line.data, "--bundles", tmp_path / "bundles")
    ran = tool("inlier-service", *command, "--trainer", BIN / "inlier-trainer", *QUICK)
    assert "passed the gate" in ran.stdout, ran.stdout + ran.stderr
    assert f"{RECIPE}  passed" in tool("inlier-service", "runs", "--data", line.data).stdout

    (folder,) = (line.data / "retraining").iterdir()
    assert json.loads((folder / "export/manifest.json").read_text())["images"]["train"] == len(images)
    criteria = json.loads((folder / "gate.json").read_text())
    assert "parity" in json.dumps(criteria)
    (published,) = (tmp_path / "bundles").iterdir()
    with (published / "audit.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == len(images)

    (candidate,) = (
        each["hash"] for each in line.get("/v1/models").json()["items"] if RECIPE in each["shadowed_recipes"]
    )
    assert candidate != base
    until, scored = time.monotonic() + 90, 0
    while not scored and time.monotonic() < until:
        assert inspected_by(line, images[0]) == base  # a shadow decides nothing
        time.sleep(1)
        scored = line.get(f"/v1/models/{candidate}/shadow?recipe={RECIPE}").json()["scored"]
    assert scored

    why = {"recipe": RECIPE, "why": "agreed"}
    change(line, "POST", f"/v1/models/{candidate}/activate", why)
    assert inspected_by(line, images[0]) == candidate
    change(line, "POST", "/v1/models/rollback", why)
    assert inspected_by(line, images[0]) == base
