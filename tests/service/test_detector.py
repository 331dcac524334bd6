"""The service on a bundle with a detector: an image posted, a verdict that is the engine's own."""

import hashlib

import numpy as np
import pytest

from models.bundle import Bundle
from models.decode import decode
from models.engine import open_engine
from models.preprocess import preprocess
from service import render
from service.settings import Settings
from tests.service.conftest import connected, png, texture


def test_an_image_is_inspected_with_the_detector(settings: Settings, tiny_detector_bundle: Bundle) -> None:
    data = png(texture(3, (72, 60)))
    served = settings.model_copy(update={"bundle": tiny_detector_bundle.path, "threads": 1})
    with connected(served) as client:
        headers = {"Prefer": "wait=30", "Content-Type": "image/png"}
        body = client.post("/v1/inspections", content=data, headers=headers).json()
        raw = client.get(body["links"]["heatmap"], params={"format": "raw"}).content
    seed = int(hashlib.sha256(data).hexdigest()[:16], 16)
    image = preprocess(decode(data), tiny_detector_bundle.manifest.preprocess)
    direct = open_engine(tiny_detector_bundle, threads=1).run(image[None], [seed], "fast")[0]
    assert body["verdict"] in {"PASS", "REVIEW", "REJECT"}
    assert body["score"]["raw"] == pytest.approx(direct.score, rel=1e-4)
    scale = body["heatmap"]["scale"]
    np.testing.assert_allclose(render.decode_map(raw, scale), direct.map, atol=2 * scale)
