"""Previews of masks: estimated from stored maps, compared with what the masked inspection then says."""

import numpy as np
import pytest
from numpy.typing import NDArray
from starlette.testclient import TestClient

from models.anomaly import ScoreCalibration
from models.bundle import Thresholds
from models.masks import Mask
from service import render
from service.blobs import BlobMissing
from service.db.repository.masks import StoredMap
from service.recipes.maskeffect import effects, uncovers
from tests.service.conftest import SIZE, png, texture
from tests.service.test_api import WAIT, assert_problem

PATH = "/v1/recipes/default/mask"
SCORES = ScoreCalibration(location=0.0, scale=1.0)
LIMITS = Thresholds(review=1.0, reject=2.0)
TOP = 4 / 1024
PNG = {"Content-Type": "image/png"}


class Kept:
    """Blobs in memory."""

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}

    def get(self, name: str) -> bytes:
        if name not in self.data:
            raise BlobMissing(name)
        return self.data[name]


def stored(blobs: Kept, amap: NDArray[np.float32], name: str = "map") -> StoredMap:
    blobs.data[name], scale = render.encode_map(amap)
    raw = float(np.sort(amap.ravel())[-4:].mean())
    return StoredMap(name, SCORES.calibrate(raw), raw, "none", name, scale)


def spot(level: float) -> NDArray[np.float32]:
    amap = np.ones((32, 32), dtype=np.float32)
    amap[4:6, 4:6] = level
    return amap


def left() -> Mask:
    mask = np.zeros((64, 64), dtype=np.bool_)
    mask[:, :32] = True
    return mask


def test_what_is_only_inside_the_mask_does_not_count_any_more() -> None:
    blobs = Kept()
    rows = [stored(blobs, spot(np.exp(2.5)), "hot"), stored(blobs, spot(1.0), "good")]
    hot, good = effects(rows, blobs, left(), None, LIMITS, SCORES, TOP)  # type: ignore[arg-type]
    assert (hot.before, hot.after) == ("REJECT", "PASS")
    assert hot.score_after == pytest.approx(0.0, abs=1e-3)  # what the other half scores
    assert (good.before, good.after) == ("PASS", "PASS")
    other = np.fliplr(left())
    assert effects(rows[:1], blobs, other, None, LIMITS, SCORES, TOP)[0].after == "REJECT"  # type: ignore[arg-type]


def test_the_same_mask_changes_no_score() -> None:
    blobs = Kept()
    row = stored(blobs, np.where(left()[::2, ::2], 0, spot(1.0) * 3).astype(np.float32))
    (found,) = effects([row], blobs, left(), left(), LIMITS, SCORES, TOP)  # type: ignore[arg-type]
    assert found.score_after == pytest.approx(found.score)


def test_maps_that_are_gone_are_left_out() -> None:
    blobs = Kept()
    row = stored(blobs, spot(1.0))
    gone = StoredMap("gone", 0.0, 1.0, "none", "gone", 1.0)
    assert [each.id for each in effects([gone, row], blobs, None, None, LIMITS, SCORES, TOP)] == ["map"]  # type: ignore[arg-type]


def test_what_is_uncovered_is_known_to_be_unknown() -> None:
    assert not uncovers(left(), None)
    assert not uncovers(left(), left())
    assert uncovers(np.fliplr(left()), left())
    assert uncovers(None, left())


def test_a_preview_over_http_changes_nothing(client: TestClient) -> None:
    dark, bright = np.full((SIZE, SIZE, 3), 3, dtype=np.uint8), np.zeros((SIZE, SIZE), dtype=np.uint8)
    dark[:, : SIZE // 2] = 30
    bright[:, : SIZE // 2] = 255
    made = client.post("/v1/inspections", content=png(dark), headers=WAIT).json()
    said = client.post(f"{PATH}/preview", content=png(bright), headers=PNG).json()
    assert (said["based_on"], said["share"], said["inspections"]) == (0, 0.5, 1)
    assert said["flips"]["total"] == len(said["flips"]["items"]) == sum(said["flips"]["kinds"].values())
    assert client.get(PATH).status_code == 404
    assert client.get(f"/v1/inspections/{made['id']}").json()["verdict"] == made["verdict"]


def test_polygons_can_be_previewed_and_what_is_no_mask_is_refused(client: TestClient) -> None:
    client.post("/v1/inspections", content=png(texture(1)), headers=WAIT)
    body = {"width": 64, "height": 64, "polygons": [[[0, 0], [31, 0], [31, 63], [0, 63]]]}
    answer = client.post(f"{PATH}/preview", json=body)
    assert (answer.status_code, answer.json()["inspections"]) == (200, 1)
    assert_problem(
        client.post(f"{PATH}/preview", content=b"x", headers={"Content-Type": "text/plain"}),
        415,
        "unsupported-media-type",
    )
    full = {"width": 9, "height": 9, "polygons": [[[0, 0], [9, 0], [9, 9], [0, 9]]]}
    assert_problem(client.post(f"{PATH}/preview", json=full), 422, "invalid-mask")
    wide = {**body, "width": 128}
    assert_problem(client.post(f"{PATH}/preview", json=wide), 422, "invalid-mask")
    assert client.get(PATH).status_code == 404  # nothing was changed
