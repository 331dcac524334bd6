"""Images that are not plain 8-bit RGB: the right answer, or a problem that says why."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow
from starlette.testclient import TestClient

from service.settings import Settings
from tests.service.conftest import PixelEngine, connected, png, texture

SMOOTH = cv2.GaussianBlur(texture(1, (48, 64)), (0, 0), 4)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """As shipped: images are decoded in a process of their own."""
    return settings.model_copy(update={"decode_processes": 1})


def encoded(image: Pillow.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def post(client: TestClient, data: bytes) -> dict:
    headers = {"Content-Type": "application/octet-stream", "Prefer": "wait=20"}
    return client.post("/v1/inspections", content=data, headers=headers).json()


def rgb() -> Pillow.Image:
    return Pillow.fromarray(SMOOTH)


@pytest.mark.promise(18)
@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (encoded(rgb(), "PNG"), "image/png"),
        (encoded(rgb(), "JPEG", quality=98), "image/jpeg"),
        (encoded(rgb(), "BMP"), "image/bmp"),
        (encoded(rgb(), "TIFF"), "image/tiff"),
        (encoded(rgb(), "WEBP", lossless=True), "image/webp"),
        (encoded(rgb().convert("CMYK"), "JPEG", quality=98), "image/jpeg"),
        (png(SMOOTH.astype(np.uint16) * 257), "image/png"),
        (encoded(Pillow.fromarray(np.dstack([SMOOTH, np.full((48, 64), 9, np.uint8)])), "PNG"), "image/png"),
    ],
    ids=["png", "jpeg", "bmp", "tiff", "webp", "cmyk", "16 bit", "alpha"],
)
def test_same_picture_same_score(client: TestClient, data: bytes, media_type: str) -> None:
    body = post(client, data)
    assert body["status"] == "done", body
    assert body["score"]["raw"] == pytest.approx(SMOOTH.mean(), abs=1.5)
    assert body["image"] | {"sha256": ""} == {
        "sha256": "",
        "media_type": media_type,
        "width": 64,
        "height": 48,
    }
    preview = client.get(f"{body['links']['image']}?size=32")
    assert preview.headers["content-type"] == "image/jpeg"
    assert Pillow.open(io.BytesIO(preview.content)).size == (32, 24)


@pytest.mark.promise(18)
def test_gray_is_served(client: TestClient) -> None:
    gray = cv2.cvtColor(SMOOTH, cv2.COLOR_RGB2GRAY)
    for data in (png(gray), png(gray.astype(np.uint16) * 257)):
        body = post(client, data)
        assert body["score"]["raw"] == pytest.approx(gray.mean(), abs=1.5)
        assert client.get(body["links"]["difference"]).status_code == 200


@pytest.mark.promise(18)
def test_exif_orientation_is_applied(client: TestClient) -> None:
    exif = Pillow.Exif()
    exif[0x112] = 6  # the camera lay on its side
    body = post(client, encoded(rgb(), "JPEG", exif=exif.tobytes()))
    assert (body["image"]["width"], body["image"]["height"]) == (48, 64)
    preview = client.get(f"{body['links']['image']}?size=64").content
    assert Pillow.open(io.BytesIO(preview)).size == (48, 64)


def bomb() -> bytes:
    """A PNG of a few hundred bytes that says it is 30000 x 30000."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


WHOLE = encoded(rgb(), "PNG")
REFUSED = {
    "empty": (b"", 422, "empty-image"),
    "text": (b"hello, this is text", 415, "unsupported-format"),
    "gif": (encoded(rgb(), "GIF"), 415, "unsupported-format"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "unsupported-format"),
    "truncated png": (WHOLE[: len(WHOLE) // 2], 422, "damaged-image"),
    "truncated jpeg": (encoded(rgb(), "JPEG")[:400], 422, "damaged-image"),
    "truncated webp": (encoded(rgb(), "WEBP")[:100], 422, "damaged-image"),
    "only a header": (WHOLE[:20], 422, "damaged-image"),
    "1 pixel": (png(texture(1, (1, 1))), 422, "image-too-small"),
    "a thin line": (png(texture(1, (4, 500))), 422, "image-too-small"),
    "float tiff": (cv2.imencode(".tiff", SMOOTH.astype(np.float32))[1].tobytes(), 422, "damaged-image"),
    "too many pixels": (png(np.zeros((101, 100), np.uint8)), 413, "too-many-pixels"),
}


@pytest.mark.promise(18)
@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_a_reason(settings: Settings, engine: PixelEngine, name: str) -> None:
    data, status, code = REFUSED[name]
    with connected(settings.model_copy(update={"max_pixels": 10_000}), engine) as client:
        answer = client.post("/v1/inspections", content=data, headers={"Content-Type": "image/png"})
        body = answer.json()
        assert (answer.status_code, body["type"]) == (status, f"urn:inlier:problem:{code}"), body
        assert len(body["detail"]) > 30
        assert client.get("/v1/inspections").json()["items"] == []  # what is refused leaves no row
        left = [path for path in (settings.data / "blobs").rglob("*") if path.is_file()]
        assert [path.name for path in left if path.name != ".lock"] == []  # and no file
        assert f'inlier_rejections_total{{reason="{code}"}} 1.0' in client.get("/metrics").text
        assert post(client, WHOLE)["status"] == "done"


@pytest.mark.promise(18)
def test_a_bomb_is_refused(client: TestClient) -> None:
    answer = client.post("/v1/inspections", content=bomb(), headers={"Content-Type": "image/png"})
    assert answer.status_code in (413, 422)
