"""From images that a service inspected to a gate: exported while it runs, examined as it inspects."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from starlette.testclient import TestClient

from models.bundle import Bundle, Thresholds
from models.snapshot import read_reviews, verify
from service.cli import cli
from service.settings import Settings
from tests.conftest import part
from tests.service.conftest import connected
from trainer.exam import ask_both, open_side, read_exam
from trainer.gate import Settings as GateSettings
from trainer.gate import hold


def png(pixels: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def inspect(client: TestClient, index: int) -> dict[str, object]:
    where = {"recipe": "bolt", "lot": f"lot{index % 3}", "station": "cam1"}
    answer = client.post(
        "/v1/inspections",
        content=png(part(200 + index)),
        params=where,
        headers={"Content-Type": "image/png", "Prefer": "wait=30"},
    )
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def say(client: TestClient, identifier: object, decision: str) -> None:
    body = {"decision": decision, "expected_revision": 0}
    answer = client.post(f"/v1/inspections/{identifier}/reviews", json=body)
    assert answer.status_code == 201, answer.text


@pytest.fixture
def settings(tmp_path: Path, tiny_bundle: Bundle) -> Settings:
    return Settings(
        data=tmp_path / "data",
        bundle=tiny_bundle.path,
        threads=1,
        log_level="warning",
        decode_processes=0,
        allowed_hosts="testserver",
    )


def test_the_gate_sees_what_the_service_saw(settings: Settings, tiny_bundle: Bundle, tmp_path: Path) -> None:
    with connected(settings) as client:
        assert client.post("/v1/recipes", json={"name": "bolt"}).status_code == 201
        mask = {"width": 40, "height": 40, "polygons": [[[0, 0], [10, 0], [10, 10], [0, 10]]]}
        set_mask = client.put("/v1/recipes/bolt/mask", params={"why": "a clamp"}, json=mask)
        assert set_mask.is_success, set_mask.text
        seen = [inspect(client, index) for index in range(30)]
        for index, one in enumerate(seen):
            if index % 2:
                say(client, one["id"], "defective" if index % 10 == 1 else "good")
        words = ["export-training", "bolt", "--data", str(settings.data), "--out", str(tmp_path / "out")]
        exported = CliRunner().invoke(cli, [*words, "--since", "1d", "--log-level", "warning"])
        assert exported.exit_code == 0, exported.output

    manifest = verify(tmp_path / "out")
    point = manifest.operating_point
    assert point is not None
    assert (point.model_hash, point.profile) == (tiny_bundle.hash, "fast")
    assert manifest.inspections["all"] == 30
    assert manifest.inspections["defective"] == 3
    exam = read_exam(tmp_path / "out", None, None, 400)
    assert exam.mask is not None
    lines = {line["image_sha256"]: line for line in read_reviews(tmp_path / "out")}
    limits = Thresholds(review=point.review, reject=point.reject)
    side = open_side(tiny_bundle, "fast", limits, threads=1)
    paths = [*exam.good, *exam.defective, *exam.escapes, *exam.recent]
    assert len(paths) == 30
    said = ask_both(side, side, paths, exam.mask, lambda done, total: None).active
    for path, score, verdict in zip(paths, said.calibrated, said.verdicts, strict=True):
        stored = lines[path.stem]
        assert score == pytest.approx(float(stored["score"]), abs=1e-4)
        assert ("PASS", "REVIEW", "REJECT")[verdict] == stored["verdict"]
    assert {path.stem for path in exam.escapes} == {
        digest for digest, line in lines.items() if line["label"] == "defective" and line["verdict"] == "PASS"
    }
    gate = hold(tiny_bundle, tiny_bundle, exam, GateSettings(threads=1, least_golden=1, latency_limit=5.0))
    assert gate.passed, [one.why for one in gate.criteria if one.passed is False]
