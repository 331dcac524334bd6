"""Masks over HTTP: uploaded, drawn, applied to what is accepted afterwards, taken back."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from starlette.testclient import TestClient

from tests.service.conftest import SIZE, png
from tests.service.test_api import WAIT, assert_problem

PATH = "/v1/recipes/default/mask"


def part_with_defect(left: bool) -> bytes:
    """A part that passes, with a patch that is rejected in its left or right half."""
    pixels = np.full((SIZE, SIZE, 3), 3, dtype=np.uint8)
    half = slice(0, SIZE // 2) if left else slice(SIZE // 2, SIZE)
    pixels[:, half] = 30
    return png(pixels)


def left(height: int = SIZE, width: int = SIZE) -> NDArray[np.uint8]:
    mask = np.zeros((height, width), dtype=np.uint8)
    mask[:, : width // 2] = 255
    return mask


def polygon(corners: str) -> bytes:
    return f'{{"width": 9, "height": 9, "polygons": [{corners}]}}'.encode()


def verdict(client: TestClient, image: bytes) -> tuple[str, str | None]:
    body = client.post("/v1/inspections", content=image, headers=WAIT).json()
    return body["verdict"], body["mask_id"]


def put(client: TestClient, data: bytes, why: str = "clamp") -> dict[str, object]:
    answer = client.put(PATH, params={"why": why}, content=data, headers={"Content-Type": "image/png"})
    assert answer.status_code == 201, answer.text
    body: dict[str, object] = answer.json()
    return body


def test_a_defect_only_inside_the_mask_passes_and_outside_it_is_rejected(client: TestClient) -> None:
    assert verdict(client, part_with_defect(left=True)) == ("REJECT", None)
    made = put(client, png(left(64, 64)))
    assert (made["version"], made["share"]) == (1, 0.5)
    assert verdict(client, part_with_defect(left=True)) == ("PASS", made["id"])
    assert verdict(client, part_with_defect(left=False)) == ("REJECT", made["id"])
    cleared = client.delete(PATH, params={"why": "moved", "based_on": 1})
    assert (cleared.status_code, cleared.json()["version"], cleared.json()["share"]) == (200, 2, 0.0)
    assert verdict(client, part_with_defect(left=True)) == ("REJECT", None)
    versions = client.get(f"{PATH}/versions").json()["items"]
    assert [(each["version"], each["why"]) for each in versions] == [(2, "moved"), (1, "clamp")]


def test_polygons_are_drawn_and_read_back_as_png(client: TestClient) -> None:
    body = {"width": 64, "height": 64, "polygons": [[[0, 0], [31, 0], [31, 63], [0, 63]]]}
    assert client.put(PATH, params={"why": "x"}, json=body).status_code == 201
    answer = client.get(PATH)
    assert (answer.headers["content-type"], answer.headers["etag"]) == ("image/png", '"1"')
    pixels = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(pixels, left(64, 64))
    assert client.get(f"{PATH}?version=1").content == answer.content


@pytest.mark.parametrize(
    ("content", "content_type", "status", "code"),
    [
        (png(np.full((32, 32), 255, np.uint8)), "image/png", 422, "invalid-mask"),
        (b"no image", "image/png", 422, "invalid-mask"),
        (cv2.imencode(".jpg", left())[1].tobytes(), "image/png", 422, "invalid-mask"),
        (b"x", "image/jpeg", 415, "unsupported-media-type"),
        (b"{", "application/json", 422, "invalid-parameters"),
        (polygon("[[0, 0], [1, 1]]"), "application/json", 422, "invalid-parameters"),
        (polygon("[[0, 0], [99, 0], [9, 9]]"), "application/json", 422, "invalid-mask"),
    ],
)
def test_what_is_no_mask(
    client: TestClient, content: bytes, content_type: str, status: int, code: str
) -> None:
    answer = client.put(f"{PATH}?why=x", content=content, headers={"Content-Type": content_type})
    assert_problem(answer, status, code)


def test_another_aspect_or_no_reason_is_refused(client: TestClient) -> None:
    verdict(client, part_with_defect(left=True))
    wide = {"params": {"why": "x"}, "content": png(left(32, 64)), "headers": {"Content-Type": "image/png"}}
    assert_problem(client.put(PATH, **wide), 422, "invalid-mask")
    assert_problem(client.put(PATH, content=png(left())), 422, "invalid-parameters")
    assert_problem(client.get(PATH), 404, "no-mask")
